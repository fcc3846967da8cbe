package gateway

import "net/http"

// Handler is what net/http calls.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serveHTTP) }
