package gateway

import (
	"context"
	"net/http"

	"github.com/millrace-io/millrace/entities"
)

// serveHTTP is the handler of net/http. It chooses the protocol of a request.
func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	if problem := checkProtocolHeaders(r.Header); problem != nil {
		refuse(w, r, problem)
		return
	}
	// Before everything that may be refused: without the headers of CORS a page could not read why.
	if w = s.cors.enter(w, r); w == nil {
		return
	}
	if !s.beginRequest() {
		refuse(w, r, unavailable("this gateway is shutting down: call another one"))
		return
	}
	defer s.requests.Done()
	if r.ProtoMajor == 1 && r.Context().Err() != nil { // a call before it was closed as its body ended: see inflow
		w.Header().Set("Connection", "close")
		refuse(w, r, unavailable("the connection has ended: call again on another one"))
		return
	}
	g := s.current.Load()
	if g == nil {
		ctx, cancel, problem := withTimeout(r)
		if problem == nil {
			defer cancel()
			g, problem = s.await(ctx)
		}
		if problem != nil {
			refuse(w, r, problem)
			return
		}
		r = r.WithContext(ctx) // the wait counts
	}
	if form := formOf(r, g.rpc.isMethod); form != formPlain {
		g.rpc.serve(form, w, r)
		return
	}
	s.servePlain(g, w, r)
}

// withTimeout returns the context of a request before it is known what is served, with the deadline
// in its headers.
func withTimeout(r *http.Request) (context.Context, context.CancelFunc, *entities.Error) {
	form := formOf(r, func(string) bool { return true })
	if form == formPlain {
		return withDeadline(r.Context(), r.Header)
	}
	text, problem := grpcTimeout(r.Header, form)
	if problem != nil {
		return nil, nil, problem
	}
	ctx, cancel, problem := withServerTimeout(r.Context(), r.Header[canonicalNames[atServerTimeout]])
	if problem != nil || text == "" {
		return ctx, cancel, problem
	}
	ctx, cancelSooner := context.WithTimeout(ctx, timeoutOf(text))
	return ctx, func() { cancelSooner(); cancel() }, nil
}

// refuse answers a request of any form before it is known what is served.
func refuse(w http.ResponseWriter, r *http.Request, problem *entities.Error) {
	problem = problem.ForCommand(httpCommandID(r.Header))
	form := formOf(r, func(string) bool { return false })
	if form == formPlain || form == formGRPC && r.ProtoMajor < 2 {
		writePlainError(w, problem)
		return
	}
	media, _ := mediaType(r.Header.Get("Content-Type"))
	c := &rpcCall{form: form, w: w, header: http.Header{}, contentType: media}
	c.refuse(0, problem)
}

// notFound names both ways to call a method: a path that is not declared has still the other one.
func notFound(method, path string) *entities.Error {
	return entities.Errorf(entities.UnknownMethod, entities.NotApplied,
		"no route for %s %s: use POST /<package.Service>/<Method>, or a path declared with google.api.http", method, path)
}
