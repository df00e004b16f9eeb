package sqlstore

import (
	"encoding/json"
	"slices"
	"testing"
)

func FuzzListsAreReadAsWritten(f *testing.F) {
	f.Add("openid", "read:orders")
	f.Add("", "")
	f.Add(`a","b`, `\`)
	f.Add("<&>", "é\u2028\x00")
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, values := range [][]string{nil, {a}, {a, b}, {b, a, b}} {
			text := list(values)
			var got, want []string
			if err := (listColumn{&got}).Scan(text); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			if err := json.Unmarshal([]byte(text), &want); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s is read as %q", text, got)
			}
		}
	})
}

func TestDamagedListsAreRefused(t *testing.T) {
	for _, text := range []string{"", "[", `["a"`, `["a" , "b"`, `["a"b"]`, `["a",1]`, `{"a":"b"}`, `["a","b]`} {
		var got []string
		if err := (listColumn{&got}).Scan(text); err == nil {
			t.Errorf("%s is read as %q", text, got)
		}
	}
}
