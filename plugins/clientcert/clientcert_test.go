package clientcert

import (
	"errors"
	"testing"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

func TestOAUTH51ARouteWithMTLSWantsACertificate(t *testing.T) {
	f := func(name string, r *routes.Route, cert *plugins.ClientCertificate, refused bool, shadow string) {
		t.Helper()
		step, err := New().Build(r)
		if err != nil {
			t.Fatal(err)
		}
		passed := false
		x := &plugins.Exchange{ClientCert: cert}
		err = plugins.Chain(func(*plugins.Exchange) error { passed = true; return nil }, step)(x)
		var e *plugins.Error
		switch {
		case refused && (passed || !errors.As(err, &e) || e.Status != 403 || e.Code != plugins.CertificateMissing):
			t.Errorf("%s: passed %v, error %v", name, passed, err)
		case !refused && (!passed || err != nil):
			t.Errorf("%s: passed %v, error %v", name, passed, err)
		case x.Record.ShadowReason != shadow:
			t.Errorf("%s: shadow reason %q", name, x.Record.ShadowReason)
		}
	}
	shown := &plugins.ClientCertificate{Subject: "CN=batch"}
	wanted := &routes.Route{Auth: &routes.Auth{MTLS: "required"}}
	f("shown", wanted, shown, false, "")
	f("absent", wanted, nil, true, "")
	f("absent in shadow mode", &routes.Route{Auth: wanted.Auth, Mode: "shadow"}, nil, false, plugins.CertificateMissing)
	f("shown in shadow mode", &routes.Route{Auth: wanted.Auth, Mode: "shadow"}, shown, false, "")
	f("not wanted", &routes.Route{Auth: &routes.Auth{}}, nil, false, "")
	f("public", &routes.Route{Public: true}, nil, false, "")
}

func BenchmarkStep(b *testing.B) {
	step, err := New().Build(&routes.Route{Auth: &routes.Auth{MTLS: "required"}})
	if err != nil {
		b.Fatal(err)
	}
	h := plugins.Chain(func(*plugins.Exchange) error { return nil }, step)
	x := &plugins.Exchange{ClientCert: &plugins.ClientCertificate{}}
	if n := testing.AllocsPerRun(100, func() { _ = h(x) }); n > 0 {
		b.Fatalf("%v allocations", n)
	}
	for b.Loop() {
		_ = h(x)
	}
}
