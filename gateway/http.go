package gateway

import (
	"net/http"

	"github.com/millrace-io/millrace/entities"
)

// serveHTTP is the handler of net/http. It chooses the protocol of a request.
func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	if w = s.cors.enter(w, r); w == nil {
		return
	}
	if !s.beginRequest() {
		refuse(w, r, unavailable("this gateway is shutting down: call another one"))
		return
	}
	defer s.requests.Done()
	g, problem := s.await(r.Context())
	if problem != nil {
		refuse(w, r, problem)
		return
	}
	if form := formOf(r, g.rpc.isMethod); form != formPlain {
		g.rpc.serve(form, w, r)
		return
	}
	s.servePlain(g, w, r)
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

func notFound(method, path string) *entities.Error {
	return entities.Errorf(entities.UnknownMethod, entities.NotApplied,
		"no route for %s %s: use POST /<package.Service>/<Method>, or a path declared with google.api.http", method, path)
}
