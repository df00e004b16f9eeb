package unusual

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// Lookup says in which country an address is, as two capital letters (ISO
// 3166-1), or "" where it does not know.
type Lookup func(ip netip.Addr) string

// Table is a Lookup's memory: ranges of addresses that do not overlap. It does
// not change.
type Table struct{ ranges []addresses }

// addresses is one range. IPv4 is mapped into IPv6, so that one order is enough.
type addresses struct {
	first, last [16]byte
	country     [2]byte
}

// ReadTable reads a file of lines `network,country`, such as
// `192.0.2.0/24,DE`, or `first,last,country`; empty lines and those that begin
// with # are passed over. It reports the first mistake with its line.
func ReadTable(path string) (*Table, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("countries: %w", err)
	}
	defer file.Close()
	t := &Table{}
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		r, err := parseLine(text)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		t.ranges = append(t.ranges, r)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("countries: %s: %w", path, err)
	}
	slices.SortFunc(t.ranges, func(a, b addresses) int { return bytes.Compare(a.first[:], b.first[:]) })
	for i := 1; i < len(t.ranges); i++ {
		if bytes.Compare(t.ranges[i].first[:], t.ranges[i-1].last[:]) <= 0 {
			return nil, fmt.Errorf("%s: two ranges hold %s", path, netip.AddrFrom16(t.ranges[i].first).Unmap())
		}
	}
	return t, nil
}

var errLine = errors.New("want network,country or first,last,country, such as 192.0.2.0/24,DE")

func parseLine(text string) (r addresses, err error) {
	fields := strings.Split(text, ",")
	for i := range fields {
		fields[i] = strings.Trim(fields[i], ` "`)
	}
	var first, last netip.Addr
	switch len(fields) {
	case 2:
		network, err := netip.ParsePrefix(fields[0])
		if err != nil {
			return r, errLine
		}
		first, last = network.Masked().Addr(), end(network)
	case 3:
		var wrong error
		first, err = netip.ParseAddr(fields[0])
		last, wrong = netip.ParseAddr(fields[1])
		if err != nil || wrong != nil || first.Is4() != last.Is4() || last.Less(first) {
			return r, errLine
		}
	default:
		return r, errLine
	}
	country := fields[len(fields)-1]
	if len(country) != 2 || strings.Trim(country, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		return r, fmt.Errorf("the country %q is not two capital letters", country)
	}
	return addresses{first.As16(), last.As16(), [2]byte{country[0], country[1]}}, nil
}

// end is the last address of a network.
func end(network netip.Prefix) netip.Addr {
	all := network.Addr().As16()
	bits := network.Bits()
	if network.Addr().Is4() {
		bits += 96
	}
	for i := bits; i < 128; i++ {
		all[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom16(all)
}

// Country is a Lookup.
func (t *Table) Country(ip netip.Addr) string {
	if !ip.IsValid() {
		return ""
	}
	at := ip.As16()
	i, found := slices.BinarySearchFunc(t.ranges, at, func(r addresses, at [16]byte) int { return bytes.Compare(r.first[:], at[:]) })
	if !found {
		i--
	}
	if i < 0 || bytes.Compare(at[:], t.ranges[i].last[:]) > 0 {
		return ""
	}
	return string(t.ranges[i].country[:])
}
