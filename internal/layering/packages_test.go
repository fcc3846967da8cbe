package layering

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// edges says which of our own packages may be imported, and why. A name that ends in /... matches
// everything below it.
type edges map[string]string

// row is the row of one package: what it is for, and what it may import besides the standard
// library.
type row struct {
	floor int
	is    string
	// tools: it may import the small packages of floor 0 that are marked as tools.
	tools bool
	// tool: it is one of them.
	tool bool
	// testTool: tests of any package may import it, and nothing else without a line of its own.
	testTool bool
	// may: what the package imports. tests: what only its tests import; they may also import
	// itself, what it may import, and all tools.
	may, tests edges
}

// packages has a row for every package, or for several. docs/adr/0002 and 0021 have the reasons.
var packages = map[string]row{
	// Floor 0: types and tools.
	"proto":                {is: "the proto files that services elsewhere import"},
	"proto/gen/cloudstate": {is: "the Cloudstate protocol: discovery and the messages that all kinds share"},
	"proto/gen/cloudstate/...": {is: "the Cloudstate protocol, a package for each kind of function", may: edges{
		"proto/gen/cloudstate": "commands, replies and failures are shared by all kinds",
	}},
	"proto/gen/millrace/...": {is: "our own messages: record, admin"},
	"proto/gen/millrace/definitions/v1": {is: "what is applied: events, state and commands", may: edges{
		"proto/gen/cloudstate": "the option that marks an entity key",
	}},
	"proto/gen/millrace/effect/v1": {is: "what an entity gets of a refused effect", may: edges{
		"proto/gen/cloudstate": "the option that marks an entity key",
	}},
	"proto/gen/millrace/peer/v1": {is: "messages between workers", may: edges{
		"proto/gen/cloudstate":        "a worker passes on its function's answer to discovery",
		"proto/gen/millrace/admin/v1": "a worker shows the status page of another",
	}},
	"proto/gen/millrace/session/v1": {is: "sessions of a function on one stream", may: edges{
		"proto/gen/cloudstate/...": "sessions have Cloudstate's messages",
	}},
	"entities":           {is: "the common types: key, command, event, outcome, error, token", tools: true},
	"internal/backoff":   {is: "pauses between retries", tool: true},
	"internal/failpoint": {is: "named moments at which tests crash the process", tool: true},
	"internal/plural":    {is: "numbers with their nouns", tool: true},
	"internal/schedule":  {is: "the rules for timers: names, times, schedules of recurring ones", tool: true},
	"internal/mutation":  {is: "safety lines that test builds remove, one at a time", tool: true},
	"internal/clock": {is: "time as an interface", tool: true, may: edges{
		"internal/failpoint": "test builds set the wall clock",
	}},
	"internal/clock/clocktest":  {is: "a clock that tests turn", testTool: true, may: edges{"internal/clock": "what jumps of a clock are"}},
	"internal/invariant":        {is: "assertions under a build tag", tool: true},
	"internal/leaktest":         {is: "tests leak no goroutines", testTool: true},
	"internal/lifecycle":        {is: "group of named tasks with one cause of their end", tool: true, tools: true},
	"internal/settings":         {is: "fields of structs that a user can set: names, defaults, bounds, texts", tool: true},
	"internal/observe":          {is: "keys of log lines, registration of metrics", tool: true, tools: true},
	"internal/fields":           {is: "protobuf messages, written and read field by field", tool: true},
	"internal/multiplex":        {is: "many conversations on one gRPC stream: the link of either side, its messages, runners", tool: true},
	"internal/tracing":          {is: "spans of commands, and where they go", tool: true},
	"internal/layering":         {is: "the test that reads this table", tests: generatedCode},
	"broker-adapter":            {floor: 1, is: "the port to the log"},
	"broker-adapter/brokertest": {floor: 2, is: "the suite that every log passes", tools: true, may: edges{"broker-adapter": "what it tests"}},

	// Floor 1: contracts.
	"entities/record": {floor: 1, is: "the durable form of records, and the reader rule", tools: true, may: edges{
		"proto/gen/millrace/record/v1": "kinds are the numbers of the proto file",
		"entities":                     "a claim carries the layout of its writer",
	}},
	"entities/discovery": {floor: 1, is: "handshake with a function; catalog of what it serves", tools: true, may: edges{
		"entities":             "the catalog makes commands",
		"proto/gen/cloudstate": "the handshake is Cloudstate's",
	}},

	"crdt": {floor: 1, is: "replicated data types: deltas, fold, snapshots", tools: true, tests: edges{
		"broker-adapter":        "the log of the model",
		"broker-adapter/simlog": "a log that compacts, for the model",
	}},
	"crdt/wire": {floor: 1, is: "deltas of Cloudstate's protocol as changes of replicated values, and back", may: edges{
		"crdt":                      "what is translated",
		"proto/gen/cloudstate/crdt": "what functions send and get",
	}},

	"projections/definition": {floor: 1, is: "YAML files become checked definitions: expressions, plans, APIs, differences", may: edges{
		"entities/discovery":               "a schema is made of what functions serve",
		"proto/gen/millrace/projection/v1": "generated services import what they have in common",
	}, tests: edges{
		"proto/gen/cloudstate": "catalogs are made from a function's discovery message",
	}},
	"projections/mapping": {floor: 1, is: "compiled folds of projections; tuples that sort as their values", tools: true, may: edges{
		"projections/definition": "what it compiles",
	}},

	// Floor 2: adapters and hosts.
	"broker-adapter/kafka/balance": {floor: 2, is: "how a Kafka group of workers assigns partitions and shares its table", may: edges{"broker-adapter": "memberships, plans and tables"}},
	"broker-adapter/kafka": {floor: 2, is: "the log on Kafka and Redpanda", tools: true, may: edges{
		"broker-adapter":               "the port that it fills",
		"broker-adapter/kafka/balance": "the balancer of its groups",
	}, tests: edges{
		"broker-adapter/brokertest": "the suite",
		"tests/kafkaserver":         "a real Kafka to pass it against",
	}},
	"broker-adapter/embedded": {
		floor: 2, is: "the log on Pebble, in this process", tools: true,
		may: edges{"broker-adapter": "the port that it fills"}, tests: edges{
			"broker-adapter/brokertest": "the suite",
		},
	},
	"broker-adapter/simlog": {
		floor: 2, is: "the log in memory with scripted faults", tools: true,
		may: edges{"broker-adapter": "the port that it fills"}, tests: edges{
			"broker-adapter/brokertest": "the suite",
		},
	},
	"materializer": {floor: 2, is: "fold of records into rows; the store's contract; key space", tools: true, may: edges{
		"broker-adapter":               "it folds what the log returns",
		"entities":                     "rows are rows of entities",
		"entities/record":              "envelope and reader rule",
		"proto/gen/millrace/record/v1": "effects and timers of restored records",
	}, tests: edges{
		"broker-adapter/simlog":    "a log to fold and to rebuild from",
		"materializer/memstore":    "a store to fold into",
		"materializer/pebblestore": "a list of a million entities on a disk",
	}},
	"materializer/memstore": {
		floor: 2, is: "the store in memory", tools: true,
		may: edges{"materializer": "the contract that it fills"}, tests: edges{
			"materializer/storetest": "the suite",
		},
	},
	"materializer/pebblestore": {
		floor: 2, is: "the store on Pebble", tools: true,
		may: edges{"materializer": "the contract that it fills"}, tests: edges{
			"materializer/storetest": "the suite",
		},
	},
	"materializer/storetest": {floor: 2, is: "the suite that every store passes, crash points included", tools: true, may: edges{"materializer": "what it tests"}},
	"entities/host": {floor: 2, is: "conversations with user functions, remote or in process", tools: true, may: edges{
		"entities":                 "it turns commands into outcomes",
		"entities/discovery":       "what the function serves",
		"proto/gen/cloudstate/...": "the conversations are Cloudstate's",

		"proto/gen/millrace/session/v1": "all of them on one stream",
	}},

	// Floor 3: parts of the engine. None imports another. Floor 4 puts them together.
	"partitions/core": {
		floor: 3,
		is:    "the owner of a partition as a pure state machine: who may write, what counts, when an answer may leave",
		tools: true, may: edges{
			"broker-adapter":               "batches are records of the log, and its errors say what became of them",
			"entities":                     "commands in, outcomes out",
			"entities/record":              "it writes envelopes",
			"materializer":                 "entries, stored answers, effects and timers, and what a repair finds",
			"proto/gen/millrace/effect/v1": "how an entity is told that its effect was refused",
			"proto/gen/millrace/record/v1": "what became of effects",
		}, tests: edges{
			"materializer/memstore": "a store that needs no directory",
		},
	},
	"partitions": {floor: 4, is: "the worker's side of a journal: the single writer of each partition", tools: true, may: edges{
		"partitions/core":              "it decides",
		"broker-adapter":               "it appends and reads",
		"entities":                     "commands in, outcomes out",
		"entities/record":              "it writes envelopes",
		"materializer":                 "it applies what is committed",
		"partitions/journal":           "the topic's settings are looked at while it runs",
		"partitions/repair":            "what a repair reads and writes again, and what is found in damaged logs",
		"partitions/replica":           "the image of a followed partition, and catch-up before a claim",
		"partitions/routing":           "it feeds the table, makes the router, and sends effects by it",
		"proto/gen/millrace/effect/v1": "how an entity is told that its effect was refused",
		"proto/gen/millrace/record/v1": "the answer that is stored with a command's records",
	}, tests: edges{
		"broker-adapter/simlog": "a log that fails as the script says",
		"materializer/memstore": "a store that needs no directory",
	}},
	"partitions/journal": {
		floor: 3,
		is:    "the topic's settings, its number of partitions, and the layout that its data is of", tools: true, may: edges{
			"broker-adapter":  "it reads the topic, and declares the layout in it",
			"entities":        "layouts",
			"entities/record": "a claim carries the layout",
			"materializer":    "it looks at records",
		}, tests: edges{
			"broker-adapter/simlog": "a journal to declare a layout in",
		},
	},
	"partitions/repair": {
		floor: 3,
		is:    "survey of a halted partition, what is written again, evidence, inspection of a log", tools: true, may: edges{
			"broker-adapter":  "it reads the log",
			"entities":        "layouts that differ",
			"entities/record": "who owns the partition",
			"materializer":    "image, fold, restoration",
		}, tests: edges{
			"broker-adapter/simlog": "a log that loses records",
			"materializer/memstore": "a store that has them",
		},
	},
	"partitions/replica": {
		floor: 3, is: "a worker's image of one partition: catch-up, following, how current it is",
		tools: true, may: edges{
			"broker-adapter":  "it reads the log",
			"entities":        "levels of consistency",
			"entities/record": "who owns the partition where the log ends",
			"materializer":    "image, fold, follower",
		}, tests: edges{
			"broker-adapter/simlog": "a log whose readers are expedited",
			"materializer/memstore": "a store to fold into",
		},
	},
	"partitions/routing": {
		floor: 3, is: "who owns which partition, commands to it, and what their outcomes ask for",
		tools: true, may: edges{
			"broker-adapter": "the tables of a group",
			"entities":       "commands in, answers out",
		},
	},
	"partitions/peer": {
		floor: 3, is: "commands from one worker to another, over connections that stay", tools: true,
		may: edges{
			"entities":                    "commands and answers are what it carries",
			"proto/gen/cloudstate":        "the answer of a function to discovery",
			"proto/gen/millrace/admin/v1": "status pages",
			"proto/gen/millrace/peer/v1":  "its messages",
		},
	},

	"projections": {floor: 3, is: "rows of projections on a worker: folded from the feeds of its images, and read", tools: true, may: edges{
		"entities/record":        "kinds of records",
		"materializer":           "feeds of images, and the store of the views",
		"projections/definition": "the views that are defined",
		"projections/mapping":    "folds, and ranges of keys",
	}, tests: edges{
		"broker-adapter":        "records, and how much of them the image reads",
		"broker-adapter/simlog": "a journal to fold",
		"materializer/memstore": "a store for the views",

		"entities":                "commands of queries",
		"projections/query":       "queries over an engine",
		"projections/query/local": "queries over an engine",

		"materializer/pebblestore": "a store for the views whose disk loses power",
	}},

	"projections/query/remote": {floor: 4, is: "rows of one worker for queries that another one answers", tools: true, may: edges{
		"entities":                   "errors of an executor",
		"projections/query":          "executors and rows",
		"proto/gen/millrace/rows/v1": "its messages",
	}},
	"projections/query": {floor: 3, is: "answers the generated services of projections", tools: true, may: edges{
		"entities":                         "commands, replies, errors and tokens",
		"entities/discovery":               "the catalog of the generated services",
		"projections/definition":           "queries and their plans",
		"projections/mapping":              "ranges of keys; programs of conditions",
		"proto/gen/cloudstate":             "how a catalog is described",
		"proto/gen/millrace/projection/v1": "what all generated services have in common",
	}},
	"projections/query/local": {floor: 3, is: "answers scans of queries from the rows of this worker", tools: true, may: edges{
		"entities":          "the partition of an entity",
		"projections":       "the rows",
		"projections/query": "the executor that it is",
	}},

	// Floor 4: the public port.
	"gateway/httprule": {floor: 3, is: "google.api.http rules: paths, queries and bodies to messages", tools: true},
	"gateway": {floor: 4, is: "gRPC, gRPC-Web, Connect, HTTP/JSON in, one command out", tools: true, may: edges{
		"entities":           "the command, and the error that it turns into a status",
		"entities/discovery": "the catalog finds the method",
		"gateway/httprule":   "HTTP/JSON: which rule serves a request, and its message",
	}, tests: edges{
		"proto/gen/cloudstate": "catalogs are made from a function's discovery message",
	}},

	// Floor 5: what is asked of a process.
	"internal/app/admin": {
		floor: 5, is: "the admin service and the pages of a worker and of a gateway", tools: true,
		may: edges{
			"broker-adapter":              "log tail, history and verify read the log",
			"entities":                    "entities are what is looked at",
			"entities/discovery":          "what is served, and how stored messages are read",
			"entities/record":             "history and log tail show records",
			"gateway":                     "the admin port has the protocols of the public one",
			"internal/definitions":        "definitions are listed, applied, promoted and dropped",
			"projections":                 "how the rows of projections stand",
			"projections/definition":      "problems of definitions",
			"materializer":                "get and history read rows, verify reads the journal",
			"partitions/core":             "states of a partition, and what a repair needs",
			"partitions":                  "status, parked effects and repair are those of the partitions",
			"partitions/peer":             "other workers are asked",
			"partitions/replica":          "the status page shows how old the answers of followers are",
			"partitions/routing":          "the table says who owns what",
			"proto/gen/millrace/admin/v1": "the admin service",

			"proto/gen/millrace/definitions/v1": "versions as their entity has them",
		}, tests: edges{
			"broker-adapter/simlog":  "a log to read",
			"examples/...":           "a service to show",
			"internal/app/inprocess": "what a service declares",
			"proto/gen/cloudstate":   "a method with eventing",
			"sdk":                    "the entity of the definitions, in memory",
		},
	},

	// Floor 6: assembly.
	"internal/app/node": {
		floor: 6,
		is:    "configuration, construction in floor order, named tasks, the order of the end", tools: true, may: edges{
			"broker-adapter":                    "it opens the log",
			"broker-adapter/embedded":           "one of the logs",
			"broker-adapter/kafka":              "one of the logs",
			"entities":                          "hooks have entities as arguments",
			"entities/discovery":                "the catalog of a function",
			"entities/host":                     "it hosts the function",
			"gateway":                           "the public port",
			"internal/app/admin":                "the admin port",
			"internal/app/inprocess":            "the runtime's own entities are services of the sdk",
			"internal/definitions":              "what is defined",
			"materializer":                      "it opens the store",
			"materializer/memstore":             "the store of an ephemeral node",
			"materializer/pebblestore":          "the store",
			"partitions/core":                   "limits of a partition, and the states that the status shows",
			"partitions":                        "the engine",
			"partitions/journal":                "the topic is checked before the engine begins",
			"partitions/peer":                   "it connects the workers of an app",
			"partitions/replica":                "the images beside which rows are folded",
			"partitions/routing":                "a gateway forwards by it",
			"projections":                       "it folds rows",
			"projections/definition":            "files of definitions, and what they are checked against",
			"projections/query":                 "it answers queries",
			"projections/query/local":           "rows of this worker",
			"projections/query/remote":          "rows of other workers",
			"proto/gen/cloudstate":              "a gateway learns what is served from a worker",
			"proto/gen/millrace/admin/v1":       "the admin service",
			"proto/gen/millrace/definitions/v1": "what another worker knows of the definitions",
			"proto/gen/millrace/rows/v1":        "rows for other workers",
		}, tests: edges{
			"examples/...":          "services to host",
			"broker-adapter/simlog": "a log of several processes, in which tests put void records",
			"entities/record":       "records that do not count, and claims of other layouts",
			"proto/gen/cloudstate":  "a function with an invalid answer to discovery",
			"sdk":                   "services called by the protocol",
		},
	},

	"internal/definitions": {
		floor: 3,
		is:    "which definitions an app has: versions, numbers of their data, which is in force", tools: true, may: edges{
			"entities":                          "errors of commands, and what is stored of the entity",
			"materializer":                      "the state is read from the image of its partition",
			"projections/definition":            "files become checked definitions",
			"proto/gen/millrace/definitions/v1": "events, state and commands of the entity",
			"sdk":                               "the entity is a function of the runtime",
		}, tests: edges{
			"entities/discovery":    "what that function declares",
			"entities/record":       "records of the entity, folded into an image",
			"examples/...":          "a function whose events are folded",
			"materializer/memstore": "the store of that image",
			"sdk/sdktest":           "the entity, given events",
		},
	},

	"internal/app/inprocess": {
		floor: 3,
		is:    "the one adapter by which services of the sdk run in the worker's own process", may: edges{
			"entities":             "it converts its types to those of the sdk",
			"entities/host":        "what a function in process must do",
			"proto/gen/cloudstate": "the answer to discovery",
			"sdk":                  "the services that it runs",
		}, tests: edges{
			"examples/...": "messages, and services to run",
		},
	},

	// Floors 6 and 7: what users run.
	"internal/app/scaffold": {floor: 1, is: "the module of a new service, from a template", may: edges{
		"proto": "proto files that the module imports",
	}},
	"internal/app/cli": {floor: 6, is: "the command tree", tools: true, may: edges{
		"entities":                    "kinds of entities that projections have as sources",
		"entities/discovery":          "definitions are checked against what functions serve",
		"projections/definition":      "check and gen proto",
		"proto/gen/cloudstate":        "a function is asked what it serves",
		"internal/app/scaffold":       "new writes a module",
		"internal/app/node":           "dev and run start one",
		"proto/gen/millrace/admin/v1": "all other commands ask one",

		"proto/gen/millrace/projection/v1": "query shows how an answer came about",
	}, tests: edges{
		"examples/...":           "services to serve",
		"internal/app/inprocess": "they are served in process",
		"sdk":                    "services that do not end, and one called by the protocol",
	}},
	root: {floor: 7, is: "what a user imports to run functions inside the worker", may: edges{
		"internal/app/cli":       "the program",
		"internal/app/inprocess": "services become a function",
		"sdk":                    "the services that it runs",
	}, tests: edges{
		"examples/...":      "a service to run",
		"internal/app/node": "a whole node to run it in",
	}},
	"cmd/millrace": {floor: 9, is: "the program", may: edges{
		root:           "all of it",
		"examples/...": "what dev serves when it is given no function",
	}},

	// Outside the floors: it is compiled into functions that run elsewhere.
	"sdk": {floor: 1, is: "what a user writes a function with", may: edges{
		"internal/multiplex":       "sessions that share a stream are on a link, and run on its goroutines",
		"internal/schedule":        "timers are checked where they are set",
		"proto/gen/cloudstate/...": "a remote function speaks Cloudstate",

		"proto/gen/millrace/effect/v1":  "how an entity learns that its effect was refused",
		"proto/gen/millrace/session/v1": "all of its sessions on one stream",
	}, tests: edges{
		"examples/...":           "services to try it on",
		"sdk/internal/script/v1": "services whose handlers do as the request says",
	}},
	"sdk/client": {floor: 1, is: "what a program that calls the services keeps between two calls", may: edges{
		"entities": "tokens are merged as the engine merges them",
	}},
	"sdk/internal/script/v1": {is: "messages of the sdk's own tests", may: edges{
		"proto/gen/cloudstate":         "the option that marks an entity key",
		"proto/gen/millrace/effect/v1": "an entity that learns of a refusal",
	}},
	"sdk/sdktest": {floor: 7, is: "given events, when a command, then events and a reply; or a whole worker", may: edges{
		"broker-adapter/simlog":    "the worker's log in memory",
		"internal/app/inprocess":   "it hosts services of the sdk",
		"internal/app/node":        "the worker",
		"internal/clock/clocktest": "the clock that a test turns",
		"sdk":                      "what it tests",
	}, tests: edges{
		"proto/gen/millrace/effect/v1": "an entity that learns of a refusal",
		"sdk/internal/script/v1":       "services whose handlers do as the request says",
	}},
	"examples/...": {floor: 8, is: "services to run, to copy and to test with", may: edges{
		root:                   "a main function hosts the service",
		"sdk":                  "a service is written with it",
		"examples/...":         "its own messages, its own service",
		"proto/gen/cloudstate": "the option that marks an entity key",
	}, tests: edges{
		"sdk/sdktest":            "each service is a test",
		"entities/discovery":     "definitions are checked against what a service declares",
		"internal/app/inprocess": "what a service declares",
		"projections/definition": "definitions are checked",
	}},

	// Suites that use everything. They run cmd as a process and import none of it.
	"tests/kit":             {is: "processes, ports, waits and settings of tests", testTool: true},
	"tests/kafkaserver":     {floor: 1, is: "a real Apache Kafka for tests", may: edges{"tests/kit": "brokers are processes"}},
	"tests/kafkaserver/cmd": {floor: 2, is: "the same for make kafka", may: edges{"tests/kafkaserver": "all of it"}},
	"tests/...":             {floor: 9, is: "suites that use everything", tools: true, may: anythingButCommands, tests: anythingButCommands},
}

// generatedCode is what generated_test.go compares with its sources.
var generatedCode = edges{
	"proto/gen/...": "does it match its source?",
	"examples/...":  "does it match its source?",
}

// anythingButCommands is what a suite that uses everything may import.
var anythingButCommands = edges{
	root: "", "broker-adapter/...": "", "entities/...": "", "examples/...": "", "gateway": "", "internal/...": "",
	"materializer/...": "",
	"partitions/...":   "", "projections/...": "", "proto/gen/...": "", "sdk/...": "", "tests/...": "",
}

// TestOwnImports compares every import of one of our packages by another with the table.
func TestOwnImports(t *testing.T) {
	for _, fault := range checkImports(readTree(t), packages) {
		t.Error(fault)
	}
}

// checkImports returns what is wrong between a tree and a table, in a fixed order.
func checkImports(tr *tree, table map[string]row) []string {
	var faults []string
	rowUsed, edgeUsed := map[string]bool{}, map[string]bool{}
	for _, folder := range slices.Sorted(maps.Keys(tr.packages)) {
		row, known := match(table, folder)
		if !known {
			faults = append(faults,
				folder+" has no row in internal/layering/packages_test.go: add one with what it is for and what it may import")
			continue
		}
		rowUsed[row] = true
		for _, file := range tr.packages[folder] {
			for _, name := range file.imports() {
				target, ours := own(name)
				if !ours || target == folder {
					continue
				}
				edge, why := mayImport(table, row, target, file.test)
				edgeUsed[edge] = true
				if why != "" {
					faults = append(faults, fmt.Sprintf("%s imports %s: %s", file.name, target, why))
				}
			}
		}
	}
	for _, row := range slices.Sorted(maps.Keys(table)) {
		if !rowUsed[row] {
			faults = append(faults,
				fmt.Sprintf("the row of %s in internal/layering/packages_test.go describes no package: remove it", row))
			continue
		}
		faults = append(faults, unused("nothing in", row, table[row].may, edgeUsed)...)
		faults = append(faults, unused("no test of", row, table[row].tests, edgeUsed)...)
	}
	return faults
}

// unused returns a fault for each edge that has a reason and no use. Edges without a reason are
// permissions for whole suites.
func unused(who, row string, allowed edges, used map[string]bool) []string {
	var faults []string
	for _, target := range slices.Sorted(maps.Keys(allowed)) {
		if allowed[target] != "" && !used[row+" > "+target] {
			faults = append(faults,
				fmt.Sprintf("%s %s imports %s any more: remove the edge from internal/layering/packages_test.go", who, row, target))
		}
	}
	return faults
}

// mayImport names the edge that allows an import; why says what is wrong with it.
func mayImport(table map[string]row, row, target string, test bool) (edge, why string) {
	to, known := match(table, target)
	if !known {
		return "", "that package has no row in internal/layering/packages_test.go"
	}
	from := table[row]
	if table[to].tool && (from.tools || test) || table[to].testTool && test {
		return "", ""
	}
	allowed, found := match(from.may, target)
	if !found && test {
		allowed, found = match(from.tests, target)
	}
	switch {
	case !found:
		return "", fmt.Sprintf(
			"the table does not have this edge. %s (floor %d) is for: %s. If the edge is right, add it with its reason to internal/layering/packages_test.go, and update ARCHITECTURE.md",
			row, from.floor, from.is)
	case !test && table[to].floor > from.floor:
		return row + " > " + allowed, fmt.Sprintf("floor %d imports floor %d; no floor may import a higher one",
			from.floor, table[to].floor)
	}
	return row + " > " + allowed, ""
}

// match finds the key of table that matches a package: its own name, or the longest one ending in
// /... above it.
func match[V any](table map[string]V, name string) (string, bool) {
	if _, known := table[name]; known {
		return name, true
	}
	for above := name; above != ""; {
		if _, known := table[above+"/..."]; known {
			return above + "/...", true
		}
		i := strings.LastIndexByte(above, '/')
		above = above[:max(i, 0)]
	}
	return "", false
}

// TestOwnImportsShow breaks a small module in every way that checkImports looks for.
func TestOwnImportsShow(t *testing.T) {
	table := map[string]row{
		"base":   {floor: 0, is: "words"},
		"tool":   {floor: 0, is: "a tool", tool: true},
		"rig":    {floor: 0, is: "a tool of tests", testTool: true},
		"kit":    {floor: 2, is: "a suite", may: edges{"port": "what it tests"}},
		"port":   {floor: 1, is: "a contract", tools: true, may: edges{"base": "uses its types"}, tests: edges{"kit": "the suite"}},
		"engine": {floor: 2, is: "an engine", may: edges{"port": "needs it"}},
	}
	whole := map[string]string{
		"base/doc.go":        "package base",
		"tool/doc.go":        "package tool",
		"rig/doc.go":         "package rig",
		"base/own_test.go":   importing("base", "rig"),
		"kit/doc.go":         importing("kit", "port"),
		"port/doc.go":        importing("port", "base", "tool"),
		"port/port_test.go":  importing("port", "kit", "tool"),
		"engine/doc.go":      importing("engine", "port"),
		"engine/own_test.go": importing("engine_test", "engine", "tool"),
	}
	if faults := checkImports(treeOf(t, whole), table); len(faults) > 0 {
		t.Fatalf("the valid module has faults: %q", faults)
	}
	for name, test := range map[string]struct{ file, text, want string }{
		"upwards":            {"base/up.go", importing("base", "port"), "base/up.go imports port: the table does not have this edge"},
		"sideways":           {"engine/kit.go", importing("engine", "kit"), "engine/kit.go imports kit: the table does not have this edge"},
		"tool without a row": {"base/tool.go", importing("base", "tool"), "base/tool.go imports tool: the table does not have this edge"},
		"rig in product":     {"port/rig.go", importing("port", "rig"), "port/rig.go imports rig: the table does not have this edge"},
		"suite in product":   {"port/kit.go", importing("port", "kit"), "port/kit.go imports kit: the table does not have this edge"},
		"no row":             {"stray/doc.go", "package stray", "stray has no row"},
		"into no row":        {"engine/stray.go", importing("engine", "stray"), "engine/stray.go imports stray: that package has no row"},
		"behind a tag":       {"base/tag.go", "//go:build never\n\n" + importing("base", "port"), "base/tag.go imports port"},
		"edge not used":      {"engine/doc.go", "package engine", "nothing in engine imports port any more"},
		"kit not used":       {"port/port_test.go", "package port", "no test of port imports kit any more"},
		"row not used":       {"kit/doc.go", "", "the row of kit"},
	} {
		t.Run(name, func(t *testing.T) {
			files := maps.Clone(whole)
			files[test.file] = test.text
			if test.text == "" {
				delete(files, test.file)
			}
			faults := checkImports(treeOf(t, files), table)
			if !slices.ContainsFunc(faults, func(f string) bool { return strings.HasPrefix(f, test.want) }) {
				t.Errorf("faults %q, want one that begins %q", faults, test.want)
			}
		})
	}
	t.Run("a table that points upwards", func(t *testing.T) {
		upside := maps.Clone(table)
		upside["base"] = row{floor: 0, is: "words", may: edges{"port": "wrong"}}
		files := maps.Clone(whole)
		files["base/up.go"] = importing("base", "port")
		faults := checkImports(treeOf(t, files), upside)
		if want := "base/up.go imports port: floor 0 imports floor 1; no floor may import a higher one"; !slices.Contains(
			faults, want) {
			t.Errorf("faults %q, want %q", faults, want)
		}
	})
}

// importing is a file that imports packages of this module.
func importing(name string, packages ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "package %s\n", name)
	for _, p := range packages {
		fmt.Fprintf(&b, "import _ %q\n", module+"/"+p)
	}
	return b.String()
}
