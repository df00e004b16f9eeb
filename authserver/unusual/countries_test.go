package unusual

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func read(t testing.TB, text string) (*Table, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "countries.csv")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return ReadTable(path)
}

func TestTableKnowsTheCountryOfEveryAddressInItsRanges(t *testing.T) {
	table, err := read(t, "# ours\n\n192.0.2.0/25,DE\n192.0.2.128,192.0.2.255,FR\n\"2001:db8::/32\",\"JP\"\n0.0.0.0/8,US\n")
	if err != nil {
		t.Fatal(err)
	}
	for ip, want := range map[string]string{
		"192.0.2.0": "DE", "192.0.2.127": "DE", "192.0.2.128": "FR", "192.0.2.255": "FR", "192.0.3.0": "", "192.0.1.255": "",
		"2001:db8::": "JP", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff": "JP", "2001:db9::": "", "::1": "", "0.0.0.1": "US", "::ffff:192.0.2.1": "DE",
	} {
		if got := table.Country(netip.MustParseAddr(ip)); got != want {
			t.Errorf("%s: %q, want %q", ip, got, want)
		}
	}
	if got := table.Country(netip.Addr{}); got != "" {
		t.Errorf("no address: %q", got)
	}
	if got := (&Table{}).Country(netip.MustParseAddr("::1")); got != "" {
		t.Errorf("no ranges: %q", got)
	}
}

func TestTableSaysWhichLineIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.0/24,DE\nnonsense":                 "countries.csv:2: want network,country",
		"192.0.2.0/33,DE":                           "countries.csv:1: want",
		"192.0.2.9,192.0.2.1,DE":                    "countries.csv:1: want",
		"192.0.2.9,::1,DE":                          "countries.csv:1: want",
		"192.0.2.0/24,Germany":                      `countries.csv:1: the country "Germany" is not two capital letters`,
		"192.0.2.0/24,DE,a,b":                       "countries.csv:1: want",
		"192.0.2.0/24,DE\n192.0.2.8/32,FR":          "two ranges hold 192.0.2.8",
		"192.0.2.0/24,DE\n192.0.2.0,192.0.2.255,DE": "two ranges hold 192.0.2.0",
	} {
		if _, err := read(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := ReadTable(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a file that is not there was read")
	}
}

func FuzzTable(f *testing.F) {
	f.Add("192.0.2.0/24,DE", "192.0.2.1")
	f.Add("192.0.2.0,192.0.2.255,DE", "::1")
	f.Fuzz(func(t *testing.T, line, address string) {
		r, err := parseLine(line)
		ip, bad := netip.ParseAddr(address)
		if err != nil || bad != nil {
			return
		}
		table := Table{ranges: []addresses{r}}
		first, last := netip.AddrFrom16(r.first), netip.AddrFrom16(r.last)
		at := netip.AddrFrom16(ip.As16())
		if inside := !at.Less(first) && !last.Less(at); inside != (table.Country(ip) != "") {
			t.Errorf("%s: %s inside %v", line, address, inside)
		}
	})
}
