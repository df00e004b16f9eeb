// Package web is what the authorization server's endpoints share about HTTP:
// reading parameters strictly, answering programs in JSON and people in HTML,
// the security fields of pages, CORS, and the guard against forged forms.
//
// It owns templates, texts and the rendering and logging of errors. It does
// not know what any endpoint does, and holds no state.
//
//	api := &web.API{Logger: logger, Timeout: 2 * time.Second, Realm: issuer}
//	mux.Handle("/oauth/token", api.Handler(tokens.Serve, http.MethodPost))
package web
