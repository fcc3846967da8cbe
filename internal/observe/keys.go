package observe

// Keys of log attributes: one name for one thing in every line.
const (
	App        = "app"
	Generation = "generation"
	Partition  = "partition"
	Partitions = "partitions"
	Offset     = "offset"
	Epoch      = "epoch"
	Nonce      = "nonce"
	Owner      = "owner" // advertised address of a worker
	Peer       = "peer"
	Entity     = "entity" // type/id
	EntityType = "entity_type"
	Command    = "command" // full method name
	CommandID  = "command_id"
	Principal  = "principal"
	Projection = "projection"
	Saga       = "saga"
	Timer      = "timer"
	Topic      = "topic"
	Token      = "token"
	Task       = "task"
	Attempt    = "attempt"
	Records    = "records"
	Bytes      = "bytes"
	Lag        = "lag"       // records
	Took       = "took"      // duration
	Worker     = "worker"    // its name
	Address    = "address"   // of a listener or a remote end
	Path       = "path"      // in the file system
	Cause      = "cause"     // why something was stopped or given up
	Stack      = "stack"     // where a function panicked
	Reference  = "reference" // which the caller's error has, too
	Error      = "error"
	TraceID    = "trace_id"
)
