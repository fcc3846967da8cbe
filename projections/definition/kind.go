package definition

import (
	"slices"

	"google.golang.org/protobuf/types/descriptorpb"
)

// APIVersion is the version of the form of definitions.
const APIVersion = "millrace/v1"

// Kind is one kind of definition. The engine makes a table of all kinds that it has (Kinds);
// nothing else knows which there are.
type Kind interface {
	// Name stands behind `kind:`.
	Name() string
	// Spec lists the keys of `spec:`.
	Spec() *Object
	// Read makes a definition of a document, without those that it names. Problems go to the report
	// of the scope; the result may be nil then.
	Read(s *Scope, d *Document) Definition
	// Limit is how many definitions of the kind an app may have.
	Limit() int
}

// Definition is a checked document of some kind.
type Definition interface {
	Head() Head
	// Link checks what names other definitions. It is called once, when all documents have been
	// read, in the order of the files.
	Link(s *Scope)
	// API is the file of the generated service, nil when the kind has none.
	API() *descriptorpb.FileDescriptorProto
	// Differences says in words what an applied definition of the same name has otherwise.
	Differences(applied Definition) []string
}

// Head says which definition it is.
type Head struct {
	Kind, Name string
	Version    int
}

// Document is one document of a file with its head.
type Document struct {
	Head
	// Root is the whole document, Spec what stands under `spec`.
	Root, Spec *Node
}

// Kinds is a table of kinds.
type Kinds []Kind

// Standard are the kinds of this package.
func Standard() Kinds { return Kinds{projectionKind{}} }

func (k Kinds) names() []string {
	names := make([]string, len(k))
	for i, kind := range k {
		names[i] = kind.Name()
	}
	return names
}

func (k Kinds) find(name string) Kind {
	if i := slices.IndexFunc(k, func(kind Kind) bool { return kind.Name() == name }); i >= 0 {
		return k[i]
	}
	return nil
}

// Source is a file of definitions.
type Source struct {
	// Name is the file's name, as in problems.
	Name string
	Text []byte
}

// Options are what definitions are checked against.
type Options struct {
	// Schema is what the functions serve.
	Schema *Schema
	// Kinds are the kinds that can be applied; Standard when nil.
	Kinds Kinds
	// Applied are the definitions in force. Those of the documents take their place.
	Applied []Definition
	// BreakAPI allows a generated API that callers of the applied one cannot use.
	BreakAPI bool
}

// Set is the result of a check.
type Set struct {
	// Definitions are in the order of the files.
	Definitions []Definition
	Report      *Report
}

// Check reads and checks all files. The definitions may be used when the report's Err is nil.
func Check(files []Source, opts Options) *Set {
	if opts.Kinds == nil {
		opts.Kinds = Standard()
	}
	s := &Scope{Report: &Report{}, Options: opts}
	var documents []*Document
	for _, file := range files {
		for _, root := range Parse(file.Name, file.Text, s.Report) {
			if d := s.head(root); d != nil {
				documents = append(documents, d)
			}
		}
	}
	s.count(documents)
	set := &Set{Report: s.Report}
	for _, d := range documents {
		if def := opts.Kinds.find(d.Kind).Read(s, d); def != nil {
			set.Definitions = append(set.Definitions, def)
		}
	}
	s.Definitions = set.Definitions
	for _, d := range set.Definitions {
		d.Link(s)
	}
	return set
}

// Scope is what a kind reads its documents with.
type Scope struct {
	*Report
	Options
	// Definitions are those of the files, when all have been read.
	Definitions []Definition

	languages map[string]*language
}

// Find returns a definition by kind and name: of the files, else of those that are applied; nil
// when there is none.
func (s *Scope) Find(kind, name string) Definition {
	for _, list := range [][]Definition{s.Definitions, s.Applied} {
		for _, d := range list {
			if h := d.Head(); h.Kind == kind && h.Name == name {
				return d
			}
		}
	}
	return nil
}

// Names returns the names of all definitions of a kind.
func (s *Scope) Names(kind string) []string {
	var names []string
	for _, list := range [][]Definition{s.Definitions, s.Applied} {
		for _, d := range list {
			if h := d.Head(); h.Kind == kind && !slices.Contains(names, h.Name) {
				names = append(names, h.Name)
			}
		}
	}
	return names
}

var (
	documentObject = &Object{Name: "a document", Fields: []Field{ //nolint:gochecknoglobals // a constant table
		{Name: "apiVersion", Type: APIVersion, Help: "the form of the document", Required: true},
		{Name: "kind", Type: "Projection", Help: "what is defined", Required: true},
		{Name: "metadata", Type: "{name: orders, version: 1}", Help: "which definition it is", Required: true},
		{Name: "spec", Type: "a map", Help: "the definition; its keys are those of the kind", Required: true},
	}}
	metadataObject = &Object{Name: "metadata", Fields: []Field{ //nolint:gochecknoglobals // a constant table
		{Name: "name", Type: "a name", Help: "[a-z][a-z0-9_]*, at most 40 letters; it is never changed", Required: true},
		{Name: "version", Type: "a whole number", Help: "positive and rising; a version is never changed", Required: true},
	}}
)

// head reads what all kinds have in common; nil when the kind is not known.
func (s *Scope) head(root *Node) *Document {
	if !s.Object(root, documentObject) {
		return nil
	}
	if n := root.Get("apiVersion"); n != nil && s.Text(n) != APIVersion {
		s.Add(n, wrongAPIVersion, short(n.Text), APIVersion)
		return nil
	}
	d := &Document{Root: root, Spec: root.Get("spec")}
	if n := root.Get("metadata"); n != nil && s.Object(n, metadataObject) {
		d.Name = s.Name(n.Get("name"))
		d.Version = s.Int(n.Get("version"), 1, 1<<31-1, 0)
	}
	n := root.Get("kind")
	if n == nil {
		return nil
	}
	d.Kind = s.Text(n)
	kind := s.Kinds.find(d.Kind)
	if kind == nil {
		s.Add(n, unknownKind, short(d.Kind), nearest(d.Kind, "the kinds", s.Kinds.names()))
		return nil
	}
	if d.Spec == nil || d.Spec.IsNull() || !s.Object(d.Spec, kind.Spec()) {
		return nil
	}
	return d
}

// count refuses two documents of one definition, and more definitions than an app may have.
func (s *Scope) count(documents []*Document) {
	for i, d := range documents {
		same := func(o *Document) bool { return o.Kind == d.Kind && o.Name == d.Name }
		if first := slices.IndexFunc(documents, same); d.Name != "" && first < i {
			s.Add(d.Root.Get("metadata"), definedTwice, d.Kind, d.Name, documents[first].Root.file, documents[first].Root.Line)
		}
	}
	for _, kind := range s.Kinds {
		s.countKind(kind, documents)
	}
}

func (s *Scope) countKind(kind Kind, documents []*Document) {
	names := map[string]bool{}
	for _, d := range s.Applied {
		if d.Head().Kind == kind.Name() {
			names[d.Head().Name] = true
		}
	}
	for _, d := range documents {
		if d.Kind != kind.Name() || names[d.Name] {
			continue
		}
		names[d.Name] = true
		if len(names) == kind.Limit()+1 {
			s.Add(d.Root, tooManyDefinitions, kind.Limit(), d.Kind)
		}
	}
}
