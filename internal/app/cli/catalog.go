package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/internal/app/node"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// servedBy are the flags that say whose services definitions are about: those of this program, of a
// file, of a running function, or of a running process.
type servedBy struct {
	local       node.Local
	descriptors string
	entities    []string
	function    string
}

func (p Program) addServedBy(cmd *cobra.Command) *servedBy {
	s := &servedBy{local: p.Local}
	addClient(cmd)
	cmd.Flags().StringVar(&s.descriptors, "descriptors", "",
		"file with a FileDescriptorSet, as protoc --include_imports and buf build write it")
	cmd.Flags().StringArrayVar(&s.entities, "entity", nil,
		"entity type in --descriptors, as TYPE=SERVICE:KIND; KIND is "+strings.Join(sourceKinds(), " or ")+"; repeatable")
	cmd.Flags().StringVar(&s.function, "function", "", "address of a running function, instead of a worker")
	_ = cmd.MarkFlagFilename("descriptors")
	return s
}

// servedByHelp says where a command that takes these flags looks.
const servedByHelp = `What the functions serve is asked of the process at --admin, or of a function at --function. No process is needed with
--descriptors; such a file does not say which entity types there are, so name each that is a source with --entity. A
program that hosts its own functions asks none unless one of these flags is given.`

// catalog returns what is served.
func (s *servedBy) catalog(cmd *cobra.Command) (*discovery.Catalog, error) {
	given := 0
	for _, name := range []string{"descriptors", "function", "admin"} {
		if cmd.Flags().Changed(name) {
			given++
		}
	}
	switch {
	case given > 1:
		return nil, usagef("--descriptors, --function and --admin: choose one")
	case len(s.entities) > 0 && s.descriptors == "":
		return nil, usagef("--entity needs --descriptors: a running process says itself which entity types it has")
	case cmd.Flags().Changed("descriptors"):
		c, err := s.ofFile()
		if err != nil {
			return nil, usageError{err}
		}
		return c, nil
	case cmd.Flags().Changed("function"):
		return s.ofFunction(cmd)
	case given == 0 && s.local != nil:
		return discovery.NewCatalog(s.local.Spec(), discovery.Options{})
	default:
		return ofProcess(cmd)
	}
}

// maxDescriptors bounds a file of descriptors.
const maxDescriptors = maxMessage

// ofFile reads descriptors; the entities are those of the flags.
func (s *servedBy) ofFile() (*discovery.Catalog, error) {
	content, err := readFile(s.descriptors, maxDescriptors)
	if err != nil {
		return nil, err
	}
	spec := &cloudstate.EntitySpec{Proto: content}
	for _, text := range s.entities {
		e, err := entityFlag(text)
		if err != nil {
			return nil, err
		}
		spec.Entities = append(spec.Entities, e)
	}
	c, err := discovery.NewCatalog(spec, discovery.Options{})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.descriptors, err)
	}
	if len(spec.GetEntities()) == 0 {
		return nil, fmt.Errorf("%s: no --entity is given: descriptors do not say which entity types there are, so name "+
			"each that is a source, as in --entity order=shop.v1.OrderService:%s; the file has %s", s.descriptors,
			sourceKinds()[0], servicesOf(c.FileDescriptorSet()))
	}
	return c, nil
}

// servicesOf names the services of files.
func servicesOf(set *descriptorpb.FileDescriptorSet) string {
	var names []string
	for _, file := range set.GetFile() {
		for _, service := range file.GetService() {
			names = append(names, file.GetPackage()+"."+service.GetName())
		}
	}
	if len(names) == 0 {
		return "no services"
	}
	return "the services " + strings.Join(names, ", ")
}

// sourceKinds are the kinds of entities that projections have as sources, as --entity takes them.
func sourceKinds() []string {
	var names []string
	for _, k := range entities.Kinds() {
		if spec := k.Spec(); spec.HasEntities && spec.Served() {
			names = append(names, strings.ReplaceAll(spec.Name, " ", "-"))
		}
	}
	return names
}

// entityFlag reads TYPE=SERVICE:KIND.
func entityFlag(text string) (*cloudstate.Entity, error) {
	name, rest, hasService := strings.Cut(text, "=")
	service, kindName, hasKind := strings.Cut(rest, ":")
	if !hasService || !hasKind || name == "" || service == "" {
		return nil, fmt.Errorf("--entity %q: write it as TYPE=SERVICE:KIND, as in order=shop.v1.OrderService:%s", text,
			sourceKinds()[0])
	}
	for _, k := range entities.Kinds() {
		if slices.Contains(sourceKinds(), kindName) && strings.ReplaceAll(k.Spec().Name, " ", "-") == kindName {
			return &cloudstate.Entity{EntityType: k.Spec().Protocol, ServiceName: service, PersistenceId: name}, nil
		}
	}
	return nil, fmt.Errorf("--entity %q: %q is not a kind of entities: use %s", text, kindName,
		strings.Join(sourceKinds(), " or "))
}

// ofFunction asks a function, once.
func (s *servedBy) ofFunction(cmd *cobra.Command) (*discovery.Catalog, error) {
	conn, err := dial(s.function)
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // only read
	ctx, cancel := withTimeout(cmd.Context(), timeout(cmd))
	defer cancel()
	spec, err := cloudstate.NewEntityDiscoveryClient(conn).Discover(ctx, discovery.NewProxyInfo("millrace", Version()))
	switch status.Code(err) {
	case codes.OK:
		return discovery.NewCatalog(spec, discovery.Options{})
	case codes.Unavailable:
		return nil, fmt.Errorf("no function answers at %s: start it, or give its address with --function (%s)", s.function,
			status.Convert(err).Message())
	case codes.Unimplemented:
		return nil, usagef("%s is not a function: it does not serve cloudstate.EntityDiscovery; a millrace process is "+
			"asked by its admin address, with --admin", s.function)
	default:
		return nil, err
	}
}

// ofProcess asks a running worker or gateway, which has accepted what it serves.
func ofProcess(cmd *cobra.Command) (*discovery.Catalog, error) {
	spec := &cloudstate.EntitySpec{}
	err := admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) error {
		files, err := a.Descriptors(ctx, &adminv1.DescriptorsRequest{})
		if err != nil {
			return err
		}
		page, err := a.Status(ctx, &adminv1.StatusRequest{})
		if err != nil {
			return err
		}
		spec.Proto = files.GetFileDescriptorSet()
		for _, service := range page.GetServices() {
			for _, k := range entities.Kinds() {
				if k.String() == service.GetKind() {
					spec.Entities = append(spec.Entities, &cloudstate.Entity{
						EntityType: k.Spec().Protocol, ServiceName: service.GetName(), PersistenceId: service.GetEntityType(),
					})
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return discovery.NewCatalog(spec, discovery.Options{Runtime: true})
}

// readFile reads a file of at most so many bytes.
func readFile(name string, most int64) ([]byte, error) {
	f, err := os.Open(name) //nolint:gosec // the user names it
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	content, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(content)) > most {
		err = fmt.Errorf("%s is larger than %d bytes", name, most)
	}
	return content, err
}
