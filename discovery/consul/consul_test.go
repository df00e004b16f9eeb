package consul

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConfigMistakesAreNamed(t *testing.T) {
	f := func(c Config, want string) {
		t.Helper()
		_, err := New(c)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want an error with %q", c, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("a secret is in the error: %v", err)
		}
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte(" \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f(Config{}, "want http://host:port")
	f(Config{Address: "unix:///run/consul.sock"}, "want http://host:port")
	f(Config{Address: "http://me:s3cret@consul:8500"}, "want http://host:port")
	f(Config{Address: "http://me:s3cret@con sul:8500"}, "not a URL")
	f(Config{Address: "http://consul:8500/?token=s3cret"}, "want http://host:port")
	f(Config{Address: "https://consul", TLS: TLS{CAFile: "/absent.pem"}}, "absent.pem")
	f(Config{Address: "https://consul", TLS: TLS{CertFile: "/absent.pem"}}, "consul tls")
	f(Config{Address: "consul:8500", TokenFile: "/absent"}, "absent")
	f(Config{Address: "consul:8500", TokenFile: empty}, "is empty")
	f(Config{Address: "consul:8500", TokenFile: empty, Token: "s3cret"}, "both")
}

func TestEnvironmentOfConsulsToolsHasNoEffect(t *testing.T) {
	t.Setenv(api.HTTPTokenEnvName, "foreign")
	t.Setenv(api.HTTPAuthEnvName, "foreign:foreign")
	t.Setenv(api.HTTPAddrEnvName, "https://foreign")
	t.Setenv(api.HTTPSSLVerifyEnvName, "false")
	tr := &trip{script: func(_ int, req *http.Request) reply {
		if req.URL.Host != "consul.test" || req.URL.Scheme != "http" || req.Header.Get("X-Consul-Token") != "" || req.Header.Get("Authorization") != "" {
			t.Errorf("request to %s with %v", req.URL, req.Header)
		}
		return reply{}
	}}
	src, err := New(Config{Address: "http://consul.test", HTTPClient: &http.Client{Transport: tr}})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := src.health.Service("orders", "", true, nil); err != nil || len(tr.asked) != 1 {
		t.Fatal(err)
	}
	own, err := newTransport(TLS{})
	if err != nil || own.TLSClientConfig.InsecureSkipVerify {
		t.Fatalf("certificates are not verified: %v", err)
	}
}

func TestAddressMayHaveAPath(t *testing.T) {
	tr := &trip{script: func(_ int, req *http.Request) reply {
		if req.URL.String() != "https://proxy.test/consul/v1/health/service/orders?passing=1" {
			t.Errorf("asked %s", req.URL)
		}
		return reply{}
	}}
	src, err := New(Config{Address: "https://proxy.test/consul/", HTTPClient: &http.Client{Transport: tr}})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := src.health.Service("orders", "", true, nil); err != nil {
		t.Fatal(err)
	}
}

func TestEndpointOfAnInstance(t *testing.T) {
	f := func(entry, want string) {
		t.Helper()
		var e []*api.ServiceEntry
		if err := json.Unmarshal([]byte("["+entry+"]"), &e); err != nil {
			t.Fatal(err)
		}
		eps, dropped := endpoints(e)
		got := ""
		if len(eps) == 1 {
			b, _ := json.Marshal(eps[0])
			got = string(b)
		}
		for _, err := range dropped {
			got += err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s\n got %s\nwant %s", entry, got, want)
		}
	}
	inst := func(fields string) string {
		return `{"Node":{"Node":"n","Address":"10.9.9.9"},"Service":{"ID":"a","Port":80` + fields + `}}`
	}
	f(inst(``), `"ID":"n/a","Addr":"10.9.9.9:80","Weight":1`)
	f(inst(`,"Address":"10.0.0.1"`), `"Addr":"10.0.0.1:80"`)
	f(inst(`,"Address":"2001:db8::1"`), `"Addr":"[2001:db8::1]:80"`)
	f(inst(`,"Address":"::ffff:10.0.0.1"`), `"Addr":"10.0.0.1:80"`)
	f(inst(`,"Tags":["v2"],"Meta":{"gw_zone":"a"}`), `"Tags":["v2"],"Meta":{"gw_zone":"a"}`)
	f(inst(`,"Weights":{"Passing":7}`), `"Weight":7`)
	f(inst(`,"Weights":{"Passing":7},"Meta":{"gw_weight":"10"}`), `"Weight":70`)
	f(inst(`,"Weights":{"Passing":-7}`), `"Weight":1`)
	f(inst(`,"Weights":{"Passing":9999999}`), `"Weight":65535`)
	for _, bad := range []string{"0", "-1", "101", "x", "1.5", " 2", "99999999999999999999"} {
		f(inst(`,"Meta":{"gw_weight":"`+bad+`"}`), `"Weight":1`)
	}
	f(inst(`,"Address":"backend.local"`), `"n/a": address "backend.local" is no IP`)
	f(inst(`,"Address":"0.0.0.0"`), `is no IP address of an instance`)
	f(inst(`,"Address":"ff02::1"`), `is no IP address of an instance`)
	f(inst(`,"Port":0`), `"n/a": port 0`)
	f(inst(`,"Port":65536`), `"n/a": port 65536`)
	f(inst(`,"Meta":{"x":"`+strings.Repeat("y", 70000)+`"}`), `70001 bytes of meta`)
	f(`null`, `without service or node`)
	f(`{"Service":{"ID":"a"}}`, `without service or node`)
	f(`{"Node":{"Node":"n"}}`, `without service or node`)
	f(inst(``)+","+inst(`,"Port":81`), `"10.9.9.9:80"`)
	f(inst(``)+","+inst(`,"Port":81`), `"n/a": there are two`)
	f(inst(``)+`,null`, `"Addr":"10.9.9.9:80"`)
}

func FuzzEndpoints(f *testing.F) {
	f.Add([]byte(`[{"Node":{"Node":"n","Address":"10.0.0.9"},"Service":{"ID":"a","Port":80,"Weights":{"Passing":1},"Meta":{"gw_weight":"3"}}}]`))
	f.Add([]byte(`[null,{"Node":null,"Service":{}},{"Node":{},"Service":{"Port":-1}}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var entries []*api.ServiceEntry
		if json.Unmarshal(data, &entries) != nil {
			return
		}
		eps, dropped := endpoints(entries)
		if len(eps)+len(dropped) != len(entries) {
			t.Fatalf("%d entries became %d endpoints and %d errors", len(entries), len(eps), len(dropped))
		}
		for i, e := range eps {
			if !e.Addr.IsValid() || e.Addr.Port() == 0 || e.Weight < 1 || (i > 0 && eps[i-1].ID >= e.ID) {
				t.Fatalf("endpoint %d: %+v", i, e)
			}
		}
	})
}
