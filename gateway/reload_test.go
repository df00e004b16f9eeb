package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// broken refuses to be built for one route.
type broken struct{ route string }

func (broken) Name() string { return "broken" }

func (b broken) Build(r *routes.Route) (plugins.Step, error) {
	if r.Name == b.route {
		return nil, errors.New("cannot build " + r.Name)
	}
	return nil, nil
}

func TestReloadIsOneSwapAndABrokenOneChangesNothing(t *testing.T) {
	u := script(t, always("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	r := serve(t, func(r *routes.Route) { r.Path = "/old" }, []plugins.Plugin{broken{"bad"}}, u.addr)
	get := func(path string) int {
		resp, err := http.Get("http://" + r.addr + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if get("/old") != 200 || get("/new") != 404 {
		t.Fatal("not the first configuration")
	}
	bad := route("bad", "/new")
	if err := r.gw.Load(context.Background(), &routes.File{Routes: []*routes.Route{bad}}); err == nil {
		t.Fatal("a broken configuration was loaded")
	}
	if get("/old") != 200 || get("/new") != 404 {
		t.Error("a broken configuration changed something")
	}
	// Under load, no request may fail while the table changes.
	stop, failed := make(chan struct{}), atomic.Int64{}
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if get("/both") != 200 {
					failed.Add(1)
				}
			}
		})
	}
	for i := range 50 {
		changing := route(fmt.Sprint("r", i), "/new")
		both := route("both", "/both")
		both.Index = 1
		if err := r.gw.Load(context.Background(), &routes.File{Routes: []*routes.Route{changing, both}}); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			failed.Store(0) // before the first load /both did not exist
		}
	}
	close(stop)
	clients.Wait()
	if failed.Load() > 4 { // the first load's requests under way
		t.Errorf("%d requests failed", failed.Load())
	}
	if get("/old") != 404 || get("/new") != 200 {
		t.Error("not the last configuration")
	}
	if n := u.conns.Load(); n > 8 {
		t.Errorf("%d connections: the pool did not outlive the reloads", n)
	}
}
