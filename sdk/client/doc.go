// Package client is for programs that call the services of a millrace app from Go, by gRPC or by
// HTTP. A [Session] makes queries read what its own calls have written before:
//
//	var session client.Session
//	conn, err := grpc.NewClient(address,
//		grpc.WithUnaryInterceptor(session.Unary), grpc.WithStreamInterceptor(session.Stream))
//
// or, for calls by HTTP:
//
//	httpClient := &http.Client{Transport: session.Transport(nil)}
//
// It starts no goroutine.
package client
