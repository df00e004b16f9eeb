package server

import (
	"net/http"
	"testing"

	"github.com/gatehouse/gatehouse/plugins"
)

func TestGRPCStatusOfRefusals(t *testing.T) {
	for status, want := range map[int]int{
		400: 13, 401: 16, 403: 7, 404: 12, 405: 12, 408: 4, 413: 8, 421: 14, 429: 8, 431: 8, 499: 1,
		500: 13, 502: 14, 503: 14, 504: 4, 417: 2,
	} {
		if got := grpcStatus(&plugins.Error{Status: status}); got != want {
			t.Errorf("%d: %d, want %d", status, got, want)
		}
	}
}

func TestGRPCMessageIsPercentEncoded(t *testing.T) {
	if got := string(appendPercent(nil, "100% ä\n~")); got != "100%25 %C3%A4%0A~" {
		t.Errorf("%q", got)
	}
}

func TestGRPCIsToldByItsContentType(t *testing.T) {
	for kind, want := range map[string]bool{
		"application/grpc": true, "application/grpc+proto": true, "Application/GRPC; x=1": true,
		"application/grpc-web": false, "application/json": false, "": false,
	} {
		if got := isGRPC(http.Header{"Content-Type": {kind}}); got != want {
			t.Errorf("%q: %v", kind, got)
		}
	}
}
