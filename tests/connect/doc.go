// Package connect runs ConnectRPC's conformance runner, pinned in runner/go.mod, against millrace:
// the clients of the runner call a worker whose user function is their ConformanceService, by
// Connect, gRPC and gRPC-Web, over HTTP/1.1 and HTTP/2.
//
//	runner's client -> worker (server/main.go) -> user function (server/function.go)
//
// config.yaml says what is served, known-failing.txt which cases cannot pass, why, and what the
// runner says of them. The test fails if another case fails, if one of these fails in another way,
// and if one of these passes.
package connect
