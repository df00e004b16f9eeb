package headless

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// CORS lets scripts of the operator's page, and of no other origin, read the
// answers of next and send the cookies.
func (f *Front) CORS(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Add("Vary", "Origin")
		if r.Header.Get("Origin") == f.origin {
			h.Set("Access-Control-Allow-Origin", f.origin)
			h.Set("Access-Control-Allow-Credentials", "true")
			h.Set("Access-Control-Expose-Headers", "Retry-After")
		}
		if r.Method != http.MethodOptions {
			next.ServeHTTP(w, r)
			return
		}
		h.Set("Access-Control-Allow-Methods", "GET, POST")
		h.Set("Access-Control-Allow-Headers", "Content-Type")
		h.Set("Access-Control-Max-Age", "600")
		w.WriteHeader(http.StatusNoContent)
	})
}

// Step makes the endpoint of a page one of the API: it gets the page's query
// and form, and its pages and redirects become JSON.
func (f *Front) Step(page web.Endpoint) web.Endpoint {
	front := &web.Front{Show: show, Vouched: true}
	return func(w http.ResponseWriter, r *http.Request) error {
		inner := r.Clone(web.WithFront(r.Context(), front))
		inner.URL.Path = f.path + strings.TrimPrefix(r.URL.Path, f.api)
		query := r.URL.Query()
		if handle := query.Get("interaction"); handle != "" {
			query.Del("interaction")
			query.Set("i", handle)
		}
		inner.URL.RawQuery = query.Encode()
		if r.Method == http.MethodPost {
			form, err := f.form(r)
			if err != nil {
				return err
			}
			inner.URL.RawQuery = ""
			inner.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			inner.Body, inner.ContentLength = io.NopCloser(strings.NewReader(form)), int64(len(form))
		}
		return page(&redirected{w, f.next}, inner)
	}
}

// form is the form that a request's JSON stands for. A page of another origin
// cannot send this content type without being asked about first, and its Origin
// says whose it is; the cookie is the endpoint's to check.
func (f *Front) form(r *http.Request) (string, error) {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" {
		return "", &oauth.Error{
			Status: http.StatusUnsupportedMediaType, Code: oauth.InvalidRequest, Description: "the content type must be application/json",
		}
	}
	if r.Header.Get("Origin") != f.origin {
		return "", &oauth.Error{Status: http.StatusForbidden, Code: oauth.AccessDenied, Description: "the request was not sent from the page of the configuration"}
	}
	var sent map[string]json.RawMessage
	content, err := web.ReadBody(r)
	if err != nil {
		return "", err
	}
	if json.Unmarshal(content, &sent) != nil || sent == nil {
		return "", oauth.Refuse(oauth.InvalidRequest, "the content is not a JSON object")
	}
	// Endpoints that tell their own form from an application's do so by the
	// presence of the token, which the front vouches for.
	form := url.Values{web.FieldCSRF: {"vouched"}}
	for name, raw := range sent {
		value := ""
		if bytes.HasPrefix(raw, []byte("{")) { // a passkey's answer, which goes on as it is
			value = string(raw)
		} else if json.Unmarshal(raw, &value) != nil {
			return "", oauth.Refuse(oauth.InvalidRequest, "a member of the content is neither text nor an object")
		}
		if name == "interaction" {
			name = "i"
		}
		form.Set(name, value)
	}
	return form.Encode(), nil
}

// show answers with what a page shows: its data, the step that it is, and what
// was wrong.
func show(w http.ResponseWriter, _ *http.Request, page web.Page) error {
	answer := map[string]any{}
	if page.Data != nil {
		data, err := json.Marshal(page.Data)
		if err == nil {
			err = json.Unmarshal(data, &answer)
		}
		if err != nil {
			return oauth.Failed(fmt.Errorf("the data of the page %s: %w", page.Name, err))
		}
	}
	answer["step"] = step(page.Name)
	if page.Problem != "" {
		answer["error"] = page.Problem
	}
	web.WriteJSON(w, max(page.Status, http.StatusOK), answer)
	return nil
}

// next answers where a page would have sent the browser: to another step, which
// GET tells more about, or away.
func (f *Front) next(w http.ResponseWriter, target string) {
	answer := map[string]string{}
	name, query, ok := f.own(target)
	if !ok {
		if strings.HasPrefix(target, "/") {
			target = f.ours + target
		}
		web.WriteJSON(w, http.StatusOK, map[string]string{"step": Done, "redirect_to": target})
		return
	}
	query.Del(web.FieldCSRF)
	for parameter := range query {
		answer[parameter] = query.Get(parameter)
	}
	if handle := query.Get("i"); handle != "" {
		delete(answer, "i")
		answer["interaction"] = handle
	}
	answer["step"] = name
	web.WriteJSON(w, http.StatusOK, answer)
}
