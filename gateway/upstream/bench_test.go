package upstream

import (
	"io"
	"net"
	"runtime"
	"syscall"
	"testing"
	"time"
)

var benchAnswer = "HTTP/1.1 200 OK\r\nDate: Mon, 23 Nov 2026 20:00:00 GMT\r\nContent-Type: application/json\r\nContent-Length: 256\r\n\r\n" +
	string(make([]byte, 256))

const benchRequest = "GET /orders/42 HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: bench\r\nAccept: */*\r\n" +
	"X-Auth-Subject: 4b1f\r\nX-Auth-Client: web\r\nX-Auth-Scope: read:orders\r\nX-Request-Id: 0123456789abcdef\r\n\r\n"

// answerAll answers every read, without looking at it and without allocating.
func answerAll(_ int, c net.Conn) {
	buf, out := make([]byte, 4096), []byte(benchAnswer)
	for {
		if _, err := c.Read(buf); err != nil {
			return
		}
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}

func roundTrip(tb testing.TB, svc *Service, deadline time.Time) {
	inst := svc.Pick(0, 0)
	c, err := inst.Conn(deadline)
	if err != nil {
		tb.Fatal(err)
	}
	c.Out = append(c.Out, benchRequest...)
	if _, err := c.RoundTrip(deadline); err != nil {
		tb.Fatal(err)
	}
	c.BodyLength(256)
	for {
		if _, err := c.Next(deadline); err == io.EOF {
			break
		} else if err != nil {
			tb.Fatal(err)
		}
	}
	c.Release(true)
	inst.Done(Success)
}

func TestRoundTripDoesNotAllocate(t *testing.T) {
	s := startScript(t, answerAll)
	svc := newTestService(t, Config{}, s.addr, s.addr)
	deadline := time.Now().Add(time.Minute)
	for range 10 {
		roundTrip(t, svc, deadline)
	}
	if n := testing.AllocsPerRun(2000, func() {
		deadline = deadline.Add(time.Microsecond) // every request has its own
		roundTrip(t, svc, deadline)
	}); n != 0 {
		t.Errorf("%v allocations per exchange", n)
	}
}

// reportCPU adds the processor time of the whole process per operation: unlike
// the wall clock it does not depend on what else the machine does.
func reportCPU(b *testing.B) func() {
	spent := func() int64 {
		var r syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r) // cannot fail for the own process
		return r.Utime.Nano() + r.Stime.Nano()
	}
	before := spent()
	return func() { b.ReportMetric(float64(spent()-before)/float64(b.N), "cpu-ns/op") }
}

// BenchmarkRoundTrip is an exchange over loopback, the instance's side in the
// same process.
func BenchmarkRoundTrip(b *testing.B) {
	s := startScript(b, answerAll)
	svc := newTestService(b, Config{}, s.addr, s.addr)
	b.ReportAllocs()
	defer reportCPU(b)()
	b.SetParallelism(32 / runtime.GOMAXPROCS(0))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			roundTrip(b, svc, time.Now().Add(10*time.Second))
		}
	})
}

// BenchmarkBareRoundTrip is the same without this package: what the sockets
// cost alone, without any check of the connection.
func BenchmarkBareRoundTrip(b *testing.B) {
	s := startScript(b, answerAll)
	b.ReportAllocs()
	defer reportCPU(b)()
	b.SetParallelism(32 / runtime.GOMAXPROCS(0))
	b.RunParallel(func(pb *testing.PB) {
		c, err := net.Dial("tcp", s.addr.String())
		if err != nil {
			b.Error(err)
			return
		}
		defer c.Close()
		buf := make([]byte, smallBuffer)
		req := []byte(benchRequest)
		for pb.Next() {
			if _, err := c.Write(req); err != nil {
				b.Error(err)
			}
			if _, err := c.Read(buf); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkLend is what an exchange costs besides its socket calls.
func BenchmarkLend(b *testing.B) {
	s := startScript(b, answerAll)
	svc := newTestService(b, Config{}, s.addr, s.addr, s.addr)
	deadline := soon()
	lend := func() {
		inst := svc.Pick(0, 0)
		c, err := inst.Conn(deadline)
		if err != nil {
			b.Fatal(err)
		}
		c.sent = true // as if there had been an exchange
		c.BodyLength(0)
		c.Release(true)
		inst.Done(Success)
	}
	b.Run("serial", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			lend()
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				lend()
			}
		})
	})
}

func BenchmarkPick(b *testing.B) {
	for name, cfg := range map[string]Config{"p2c": {}, "round_robin": {Balance: RoundRobin}, "hash": {Balance: Hash}} {
		b.Run(name, func(b *testing.B) {
			svc := NewService(cfg, time.Now)
			svc.Update(fakeEndpoints(1, 2, 3, 4, 5))
			for b.Loop() {
				svc.Pick(42, 0).Done(Success)
			}
		})
	}
}

// BenchmarkFresh is the check of an idle connection on its own, as Send does
// it; RoundTrip's costs nothing besides its read.
func BenchmarkFresh(b *testing.B) {
	s := startScript(b, answerAll)
	svc := newTestService(b, Config{}, s.addr)
	c := lend(b, svc)
	defer c.Release(false)
	b.ReportAllocs()
	for b.Loop() {
		if !c.sock.fresh() {
			b.Fatal("not fresh")
		}
	}
}
