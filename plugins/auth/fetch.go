package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	fetchTimeout = 3 * time.Second
	fetchMost    = 1 << 20
)

// newClient makes the client for issuers. Redirects stay on their host: an
// issuer does not say where else keys may come from.
func newClient() *http.Client {
	return &http.Client{
		Timeout: fetchTimeout,
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DisableKeepAlives:      true, // hourly calls; nothing to keep
			MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if first := via[0].URL; r.URL.Host != first.Host || r.URL.Scheme != first.Scheme {
				return errors.New("redirect to another host")
			}
			if len(via) > 3 {
				return errors.New("more than 3 redirects")
			}
			return nil
		},
	}
}

func get(ctx context.Context, client *http.Client, uri string) ([]byte, http.Header, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, uri, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("getting issuer document: %w", err)
	}
	request.Header.Set("Accept", "application/json, application/jwk-set+json")
	response, err := client.Do(request)
	if err != nil {
		return nil, nil, fmt.Errorf("getting issuer document: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("getting %s: status %d", uri, response.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, fetchMost+1))
	if err != nil {
		return nil, nil, fmt.Errorf("getting %s: %w", uri, err)
	}
	if len(body) > fetchMost {
		return nil, nil, fmt.Errorf("getting %s: more than 1 MiB", uri)
	}
	return body, response.Header, nil
}

// discover finds the jwks_uri in the issuer's metadata: OpenID Connect
// Discovery 1.0, section 4, else RFC 8414, section 3.
func discover(ctx context.Context, client *http.Client, issuer string) (string, error) {
	at, err := url.Parse(issuer)
	if err != nil {
		return "", fmt.Errorf("issuer: %w", err)
	}
	path := strings.TrimSuffix(at.Path, "/")
	var errs []error
	for _, p := range []string{
		path + "/.well-known/openid-configuration",
		"/.well-known/oauth-authorization-server" + path,
	} {
		uri := *at
		uri.Path = p
		jwks, err := discoverAt(ctx, client, uri.String(), issuer)
		if err == nil {
			return jwks, nil
		}
		errs = append(errs, err)
	}
	return "", errors.Join(errs...)
}

func discoverAt(ctx context.Context, client *http.Client, uri, issuer string) (string, error) {
	body, _, err := get(ctx, client, uri)
	if err != nil {
		return "", err
	}
	var metadata struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(body, &metadata); err != nil {
		return "", fmt.Errorf("reading %s: %w", uri, err)
	}
	// Exactly: RFC 8414, 3.3. Else one issuer could speak for another.
	if metadata.Issuer != issuer {
		return "", fmt.Errorf("%s names another issuer", uri)
	}
	jwks, err := url.Parse(metadata.JWKSURI)
	if err != nil || jwks.Host == "" || jwks.User != nil {
		return "", fmt.Errorf("%s has no usable jwks_uri", uri)
	}
	if jwks.Scheme != "https" && !(jwks.Scheme == "http" && strings.HasPrefix(issuer, "http://")) {
		return "", fmt.Errorf("%s: jwks_uri is not https", uri)
	}
	return metadata.JWKSURI, nil
}

// fetchKeys gets the key set at uri and tells how long it is fresh.
func fetchKeys(ctx context.Context, client *http.Client, uri string, algorithms []string) (*keySet, time.Duration, error) {
	body, header, err := get(ctx, client, uri)
	if err != nil {
		return nil, 0, err
	}
	set, err := parseKeys(body, algorithms)
	if err != nil {
		return nil, 0, fmt.Errorf("reading keys of %s: %w", uri, err)
	}
	return set, freshness(header), nil
}

// freshness is Cache-Control's max-age within our bounds, else an hour.
func freshness(h http.Header) time.Duration {
	for directive := range strings.SplitSeq(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch strings.ToLower(name) {
		case "no-store", "no-cache":
			return freshLeast
		case "max-age":
			n, err := strconv.ParseInt(strings.Trim(value, `"`), 10, 32)
			if err != nil {
				continue
			}
			return min(max(time.Duration(n)*time.Second, freshLeast), freshMost)
		}
	}
	return fresh
}
