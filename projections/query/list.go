package query

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/projections/mapping"
)

func unmarshalRow(encoded []byte, row proto.Message) error {
	if err := proto.Unmarshal(encoded, row); err != nil {
		return fmt.Errorf("a row is damaged: %w", err)
	}
	return nil
}

func permissionDenied(m *method) error {
	return refused(codes.PermissionDenied,
		"%s has a condition `allow`, and callers cannot be authenticated yet: it is served in the profile dev only", m.name)
}

// list answers a page of rows.
func (c *call) list(ctx context.Context) (*entities.Reply, error) {
	size, err := c.pageSize()
	if err != nil {
		return nil, err
	}
	if err := c.planList(); err != nil {
		return nil, err
	}
	arguments, err := c.request.arguments()
	if err != nil {
		return nil, err
	}
	if err := c.resume(arguments); err != nil {
		return nil, err
	}
	var rows [][]byte
	var frontier []byte
	bytesOfRows := 0
	more, err := c.scan(ctx, size+1, func(e *Entry) (goesOn bool, err error) {
		frontier = append(frontier[:0], e.Tuple...)
		wanted, err := c.plan.wanted(e.Row)
		if err != nil {
			return false, err
		}
		if wanted {
			rows = append(rows, bytes.Clone(e.Row))
			bytesOfRows += len(e.Row)
			c.returned++
			c.stale = c.stale || e.Stale
		}
		return c.returned < int64(size) && bytesOfRows < c.service.o.MaxReply &&
			c.examined < int64(c.service.o.MaxExamined), nil
	})
	if err != nil {
		return nil, err
	}
	buf, err := c.encodeRows(ctx, rows)
	if err != nil {
		return nil, err
	}
	if more {
		token, err := c.nextPage(arguments, frontier)
		if err != nil {
			return nil, err
		}
		buf = appendText(buf, nextField, token)
	}
	return c.finish(buf)
}

// pageSize returns the number of rows of a page.
func (c *call) pageSize() (int, error) {
	q := c.method.query
	switch n := c.request.pageSize; {
	case n < 0:
		return 0, invalid("%s: page_size is %d: use 1 to %d, or leave it out for %d", c.method.name, n, q.MaxPage,
			q.DefaultPage)
	case n == 0:
		return q.DefaultPage, nil
	default:
		return min(n, q.MaxPage), nil
	}
}

// sameDataset opens the page token. A list that began in a version that is not the promoted one any
// more goes on in it while its rows are kept.
func (c *call) sameDataset(payload []byte) error {
	if c.request.pageToken == "" {
		return nil
	}
	var err error
	if c.page, err = c.served.sealer.open(pageVersion, c.request.pageToken); err != nil {
		return invalid("%s: the page_token is not valid (%w): send the next_page_token of the page before", c.method.name,
			err)
	}
	before := c.served.kept[keptMethod{c.page.dataset, c.page.method}]
	if before == nil || c.page.method != c.method.fullName || c.page.dataset == c.method.p.view.Dataset {
		return nil
	}
	c.method = before
	c.request, err = before.decode(payload)
	return err
}

// resume goes on behind the page before.
func (c *call) resume(arguments [32]byte) error {
	p := c.page
	if p == nil {
		return nil
	}
	if p.method != c.method.fullName || p.arguments != arguments {
		return invalid("%s: the page_token belongs to a list with other arguments: send the same ones for each page, but page_size, freshness and explain",
			c.method.name)
	}
	if p.dataset != c.method.p.view.Dataset || p.table != c.plan.tableID() {
		return refused(codes.FailedPrecondition,
			"%s: the page_token is of an earlier version of the projection: begin again, without page_token", c.method.name)
	}
	s := &c.plan.span
	if s.none || bytes.Compare(p.frontier, s.lower) < 0 || s.upper != nil && bytes.Compare(p.frontier, s.upper) >= 0 {
		return invalid("%s: the page_token is not valid (%w): send the next_page_token of the page before", c.method.name,
			errPageToken)
	}
	s.after(p.frontier, c.plan.reverse)
	c.demand.pages = p.positions
	return nil
}

// nextPage returns the token of the page that begins behind a tuple.
func (c *call) nextPage(arguments [32]byte, frontier []byte) (string, error) {
	p := &page{
		dataset: c.method.p.view.Dataset, table: c.plan.tableID(), method: c.method.fullName, arguments: arguments,
		frontier: frontier,
	}
	if len(c.read) <= entities.MaxPositions {
		for _, r := range c.read {
			p.positions = append(p.positions, entities.Position{Partition: r.partition, Next: r.at.Position})
		}
	}
	nonce, err := newNonce()
	if err != nil {
		return "", err
	}
	return c.served.sealer.seal(pageVersion, p, nonce), nil
}

// newNonce returns a nonce for one token.
func newNonce() (nonce [nonceSize]byte, err error) {
	_, err = rand.Read(nonce[:])
	return nonce, err
}

// get answers one row.
func (c *call) get(ctx context.Context) (*entities.Reply, error) {
	p := c.method.p
	values := make([]mapping.Value, 0, len(p.key.fields))
	for _, f := range p.definition.Key {
		values = append(values, mapping.ValueOf(c.request.message, c.request.field(f.Name())))
	}
	entity := string(values[0].Text())
	if entity == "" {
		return nil, invalid("%s: %s is missing: it is the id of the entity", c.method.name, p.definition.Key[0].Name())
	}
	key := p.key.shape.Append(nil, values...)
	c.plan = plan{
		index: "key", entity: entity, onePartition: true, row: p.definition.Row,
		span: span{lower: key, upper: mapping.Successor(key)},
	}
	var rows [][]byte
	_, err := c.scan(ctx, 1, func(e *Entry) (bool, error) {
		rows = append(rows, bytes.Clone(e.Row))
		c.returned++
		c.stale = c.stale || e.Stale
		return false, nil
	})
	switch {
	case err != nil:
		return nil, err
	case c.returned == 0:
		return nil, refused(codes.NotFound, "%s: there is no row with %s", c.method.name, c.keyText())
	}
	buf, err := c.encodeRows(ctx, rows)
	if err != nil {
		return nil, err
	}
	return c.finish(buf)
}

// keyText writes the key of a request.
func (c *call) keyText() string {
	var b bytes.Buffer
	for i, f := range c.method.p.definition.Key {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %q", f.Name(), clipText(c.request.message.Get(c.request.field(f.Name())).String()))
	}
	return b.String()
}
