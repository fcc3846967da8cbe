package definitions_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/millrace-io/millrace/internal/definitions"
	definitionsv1 "github.com/millrace-io/millrace/proto/gen/millrace/definitions/v1"
	"github.com/millrace-io/millrace/sdk/sdktest"
)

const (
	applyMethod    = definitionsv1.DefinitionsService_Apply_FullMethodName
	describeMethod = definitionsv1.DefinitionsService_Describe_FullMethodName
	promoteMethod  = definitionsv1.DefinitionsService_Promote_FullMethodName
	rollbackMethod = definitionsv1.DefinitionsService_Rollback_FullMethodName
	dropMethod     = definitionsv1.DefinitionsService_Drop_FullMethodName
)

// at is the log time of all commands here.
var at = time.Date(2026, time.November, 30, 12, 0, 0, 0, time.UTC)

func newEntity(t *testing.T) *sdktest.Scenario {
	t.Helper()
	return sdktest.New(t, definitions.Services()[0], definitions.EntityID).As("ann").At(at)
}

// draft is a version of orders with an index; content and fold say what it means.
func draft(number int32, content, fold string) *definitionsv1.Draft {
	return &definitionsv1.Draft{
		Kind: "Projection", Name: "orders", Number: number, Document: "d" + content, File: "orders.yaml",
		Captured: []string{"c"}, Content: content, FoldHash: fold,
		Indexes: []*definitionsv1.Number{{Name: "by_customer", Form: "f"}}, KeepPrevious: durationpb.New(time.Hour),
	}
}

func applying(drafts ...*definitionsv1.Draft) *definitionsv1.ApplyRequest {
	return &definitionsv1.ApplyRequest{App: definitions.EntityID, Drafts: drafts}
}

// applied is the event of draft, with the numbers that it got.
func applied(d *definitionsv1.Draft, dev int32, dataset, index uint32) *definitionsv1.Applied {
	return &definitionsv1.Applied{
		Kind: d.GetKind(), Name: d.GetName(), Version: version(d.GetNumber(), dev), Document: d.GetDocument(),
		File: d.GetFile(), Captured: d.GetCaptured(), Content: d.GetContent(), FoldHash: d.GetFoldHash(), Dataset: dataset,
		Indexes: []*definitionsv1.Number{{Name: "by_customer", Form: d.GetIndexes()[0].GetForm(), Number: index}},
		Manual:  d.GetManual(), KeepPrevious: d.GetKeepPrevious(), Uses: d.GetUses(), At: timestamppb.New(at), By: "ann",
	}
}

func version(number, dev int32) *definitionsv1.Version {
	return &definitionsv1.Version{Number: number, Dev: dev}
}

func promoted(number, dev int32) *definitionsv1.Promoted {
	return &definitionsv1.Promoted{
		Kind: "Projection", Name: "orders", Version: version(number, dev), At: timestamppb.New(at), By: "ann",
	}
}

func dropped(number, dev int32, reason string) *definitionsv1.Dropped {
	return &definitionsv1.Dropped{
		Kind: "Projection", Name: "orders", Version: version(number, dev), Reason: reason, At: timestamppb.New(at), By: "ann",
	}
}

func promoting(number, dev int32) *definitionsv1.PromoteRequest {
	return &definitionsv1.PromoteRequest{
		App: definitions.EntityID, Kind: "Projection", Name: "orders", Version: version(number, dev),
	}
}

// TestAVersionIsImmutable: the same content again is nothing, another one is refused.
func TestAVersionIsImmutable(t *testing.T) {
	first := draft(4, "a", "x")
	newEntity(t).When(applyMethod, applying(first)).ThenEvents(applied(first, 0, 1, 1)).
		When(applyMethod, applying(first)).ThenEvents().
		ThenReply(&definitionsv1.ApplyResponse{Revision: 1, Outcomes: []*definitionsv1.Outcome{{
			Kind: "Projection", Name: "orders", Version: version(4, 0), Result: definitions.Unchanged, Dataset: 1,
		}}}).
		When(applyMethod, applying(draft(4, "b", "x"))).
		ThenRefused(codes.Aborted, "orders version 4 is applied with other content: raise metadata.version").
		When(applyMethod, applying(draft(3, "b", "x"))).
		ThenRefused(codes.FailedPrecondition,
			"orders version 3 is lower than version 4, which was applied: raise metadata.version above 4")
}

// TestOneApplyIsOneGroup: one wrong draft, and nothing is applied.
func TestOneApplyIsOneGroup(t *testing.T) {
	first, other := draft(4, "a", "x"), draft(1, "c", "z")
	other.Name = "customers"
	newEntity(t).Given(applied(first, 0, 1, 1)).
		When(applyMethod, applying(other, draft(4, "b", "x"))).ThenRefused(codes.Aborted, "orders version 4").
		When(describeMethod, &definitionsv1.DescribeRequest{App: definitions.EntityID}).ThenEvents()
	second := draft(5, "b", "x")
	e := applied(other, 0, 2, 1)
	e.At = timestamppb.New(at)
	newEntity(t).Given(applied(first, 0, 1, 1)).At(at).
		When(applyMethod, applying(other, second)).ThenEvents(e, applied(second, 0, 1, 1))
}

// TestNumbers: a fold that a live version has shares its rows, and in them an index that is the
// same. Everything else gets a number that nothing had before.
func TestNumbers(t *testing.T) {
	s := newEntity(t)
	next := func(d *definitionsv1.Draft, dataset, index uint32) {
		t.Helper()
		s.At(at).When(applyMethod, applying(d)).ThenEvents(applied(d, 0, dataset, index))
	}
	next(draft(1, "a", "x"), 1, 1)
	next(draft(2, "b", "x"), 1, 1) // another query
	third := draft(3, "c", "x")
	third.Indexes[0].Form = "g"
	next(third, 1, 2) // another index under the name
	next(draft(4, "d", "y"), 2, 1)
	next(draft(5, "e", "x"), 1, 1)
	// When all of a fold are dropped, its number and those of its indexes are gone for ever.
	s.At(at).When(dropMethod, &definitionsv1.DropRequest{App: definitions.EntityID, Kind: "Projection", Name: "orders"}).
		ThenEvents(dropped(1, 0, ""), dropped(2, 0, ""), dropped(3, 0, ""), dropped(4, 0, ""), dropped(5, 0, ""))
	next(draft(6, "f", "x"), 3, 1)
	s.When(applyMethod, applying(draft(5, "e", "x"))).ThenRefused(codes.FailedPrecondition, "lower than version 6")
}

// TestADroppedIndexIsNotTheOneBefore: an index that no live version has any more gets another
// number when it comes back, because its entries may be gone.
func TestADroppedIndexIsNotTheOneBefore(t *testing.T) {
	other := draft(2, "b", "x")
	other.Indexes[0].Form = "g"
	again := draft(3, "c", "x")
	newEntity(t).Given(applied(draft(1, "a", "x"), 0, 1, 1), applied(other, 0, 1, 2), dropped(1, 0, "")).
		When(applyMethod, applying(again)).ThenEvents(applied(again, 0, 1, 3))
}

// TestADroppedVersionStaysDropped, and --definitions DIR goes on with a warning.
func TestADroppedVersionStaysDropped(t *testing.T) {
	s := newEntity(t).Given(applied(draft(4, "a", "x"), 0, 1, 1), dropped(4, 0, ""))
	s.When(applyMethod, applying(draft(4, "a", "x"))).
		ThenRefused(codes.FailedPrecondition, "orders version 4 was dropped: raise metadata.version")
	in := applying(draft(4, "a", "x"))
	in.Lenient = true
	s.When(applyMethod, in).ThenEvents().ThenReply(&definitionsv1.ApplyResponse{
		Revision: 2, Outcomes: []*definitionsv1.Outcome{{
			Kind: "Projection", Name: "orders", Version: version(4, 0), Result: definitions.Skipped,
			Warning: "orders version 4 was dropped: raise metadata.version",
		}},
	})
}

// TestVersionsForDevelopment: other content under a number becomes the next version for
// development; the one before goes when that takes over, and at once if it never did.
func TestVersionsForDevelopment(t *testing.T) {
	dev := func(content, fold string) *definitionsv1.ApplyRequest {
		in := applying(draft(4, content, fold))
		in.Dev = true
		return in
	}
	s := newEntity(t)
	s.At(at).When(applyMethod, dev("a", "x")).ThenEvents(applied(draft(4, "a", "x"), 0, 1, 1))
	s.At(at).When(promoteMethod, promoting(4, 0)).ThenEvents(promoted(4, 0))
	s.At(at).When(applyMethod, dev("b", "y")).ThenEvents(applied(draft(4, "b", "y"), 1, 2, 1))
	s.At(at).When(applyMethod, dev("b", "y")).ThenEvents()
	s.At(at).When(applyMethod, dev("c", "z")).
		ThenEvents(applied(draft(4, "c", "z"), 2, 3, 1), dropped(4, 1, "replaced by 4-dev.2 before it was ready"))
	s.At(at).When(promoteMethod, promoting(4, 2)).ThenEvents(promoted(4, 2), dropped(4, 0, "replaced by 4-dev.2"))
	s.At(at).When(applyMethod, dev("a", "x")).ThenEvents(applied(draft(4, "a", "x"), 3, 4, 1))
}

// TestRollback puts the version before in force, and the one that it replaces waits for an operator
// from then on.
func TestRollback(t *testing.T) {
	rollback := &definitionsv1.RollbackRequest{App: definitions.EntityID, Kind: "Projection", Name: "orders"}
	s := newEntity(t).Given(applied(draft(1, "a", "x"), 0, 1, 1))
	s.When(rollbackMethod, rollback).ThenRefused(codes.FailedPrecondition, "orders has no version in force")
	s.Given(promoted(1, 0))
	s.When(rollbackMethod, rollback).
		ThenRefused(codes.FailedPrecondition, "orders has no version to go back to: the ones before version 1 are dropped")
	s.Given(applied(draft(2, "b", "x"), 0, 1, 1), promoted(2, 0), applied(draft(3, "c", "x"), 0, 1, 1), promoted(3, 0))
	s.At(at).When(rollbackMethod, rollback).ThenEvents(&definitionsv1.RolledBack{
		Kind: "Projection", Name: "orders", From: version(3, 0), To: version(2, 0), At: timestamppb.New(at), By: "ann",
	})
	automatic := promoting(3, 0)
	automatic.Automatic = true
	s.When(promoteMethod, automatic).
		ThenRefused(codes.FailedPrecondition, "orders version 3 waits for an operator to promote it")
	s.At(at).When(promoteMethod, promoting(3, 0)).ThenEvents(promoted(3, 0))
}

// TestPromote: what was built and is lower goes, what was in force is kept.
func TestPromote(t *testing.T) {
	s := newEntity(t).Given(applied(draft(1, "a", "x"), 0, 1, 1), promoted(1, 0), applied(draft(2, "b", "y"), 0, 2, 1),
		applied(draft(3, "c", "z"), 0, 3, 1), applied(draft(4, "d", "v"), 0, 4, 1))
	stale := promoting(3, 0)
	stale.Expected = 4
	s.When(promoteMethod, stale).ThenRefused(codes.Aborted,
		"the definitions have changed: they are at revision 5, and the command was made for 4: try again")
	s.At(at).When(promoteMethod, promoting(3, 0)).ThenEvents(promoted(3, 0), dropped(2, 0, "version 3 was ready first"))
	s.At(at).When(promoteMethod, promoting(3, 0)).ThenEvents()
	s.When(promoteMethod, promoting(2, 0)).ThenRefused(codes.NotFound, "orders version 2 was dropped, or never applied")
	s.When(promoteMethod, promoting(9, 0)).ThenRefused(codes.NotFound, "orders version 9 is not applied")
	for _, refused := range []struct {
		version int32
		code    codes.Code
		text    string
	}{
		{3, codes.FailedPrecondition, "orders version 3 is in force: promote another one, or drop all of orders"},
		{2, codes.NotFound, "orders version 2 was dropped"},
	} {
		s.When(dropMethod, &definitionsv1.DropRequest{
			App: definitions.EntityID, Kind: "Projection", Name: "orders", Version: version(refused.version, 0),
		}).ThenRefused(refused.code, refused.text)
	}
}

// TestWhatIsUsedStays: a definition that another one looks rows up in is there as long as that.
func TestWhatIsUsedStays(t *testing.T) {
	user, target := draft(1, "a", "x"), draft(1, "b", "y")
	user.Uses, target.Name = []string{"customers"}, "customers"
	s := newEntity(t)
	s.When(applyMethod, applying(user)).
		ThenRefused(codes.FailedPrecondition, "orders uses customers, which is not applied: apply both")
	s.Given(applied(target, 0, 1, 1), applied(user, 0, 2, 1))
	s.When(dropMethod, &definitionsv1.DropRequest{App: definitions.EntityID, Kind: "Projection", Name: "customers"}).
		ThenRefused(codes.FailedPrecondition, "customers is used by orders: drop that first")
}

// TestLimitsOfTheEntity: what one app, one apply and one dataset may have.
func TestLimitsOfTheEntity(t *testing.T) {
	s := newEntity(t)
	many := make([]*definitionsv1.Draft, 257)
	for i := range many {
		many[i] = draft(1, "a", "x")
		many[i].Name = fmt.Sprintf("p%d", i)
	}
	s.When(applyMethod, applying(many...)).
		ThenRefused(codes.InvalidArgument, "257 definitions are more than one apply may have")
	for n := range int32(16) {
		s.Given(applied(draft(n+1, fmt.Sprint(n), "x"), 0, 1, uint32(n+1)))
	}
	s.When(applyMethod, applying(draft(16, "15", "x"))).ThenEvents() // the same again is always possible
	s.When(applyMethod, applying(draft(17, "q", "x"))).
		ThenRefused(codes.ResourceExhausted, "orders has 16 versions that are not dropped: drop one of them")
	last := applied(draft(1, "a", "x"), 0, 1, 65535)
	other := draft(2, "b", "x")
	other.Indexes[0].Form = "g"
	newEntity(t).Given(last).When(applyMethod, applying(other)).
		ThenRefused(codes.ResourceExhausted, "no number is left for by_customer: the rows have had 65535")
	sdktest.New(t, definitions.Services()[0], "other").When(applyMethod, applying(draft(1, "a", "x"))).
		ThenRefused(codes.InvalidArgument, `the only entity of this type has the id "app"`)
}

// TestBlobs: content is named by its hash, is stored once and is never another one.
func TestBlobs(t *testing.T) {
	const sha = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae" // of foo
	const put, get = definitionsv1.BlobService_Put_FullMethodName, definitionsv1.BlobService_Get_FullMethodName
	s := sdktest.New(t, definitions.Services()[1], sha)
	s.When(get, &definitionsv1.GetRequest{Sha256: sha}).ThenRefused(codes.NotFound, "there is no blob 2c26")
	s.When(put, &definitionsv1.PutRequest{Sha256: sha, Content: []byte("bar")}).
		ThenRefused(codes.InvalidArgument, "has the hash fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9")
	s.When(put, &definitionsv1.PutRequest{Sha256: sha, Content: []byte("foo")}).
		ThenState(&definitionsv1.Blob{Content: []byte("foo")})
	s.When(put, &definitionsv1.PutRequest{Sha256: sha, Content: []byte("foo")}).ThenReply(&definitionsv1.PutResponse{})
	s.When(get, &definitionsv1.GetRequest{Sha256: sha}).ThenReply(&definitionsv1.GetResponse{Content: []byte("foo")})
}
