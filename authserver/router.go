package authserver

import (
	"net/http"
	"strings"
)

// router finds a handler by path, at once where a pattern is a whole path.
type router struct {
	exact map[string]http.Handler
	mux   *http.ServeMux
}

func newRouter() *router {
	return &router{exact: map[string]http.Handler{}, mux: http.NewServeMux()}
}

// Handle serves a pattern of http.ServeMux that has no method and no host.
func (r *router) Handle(pattern string, h http.Handler) {
	r.mux.Handle(pattern, h)
	if !strings.HasSuffix(pattern, "/") && !strings.Contains(pattern, "{") {
		r.exact[pattern] = h
	}
}

func (r *router) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	if h, ok := r.exact[q.URL.Path]; ok {
		h.ServeHTTP(w, q)
		return
	}
	r.mux.ServeHTTP(w, q)
}
