package oauth

import (
	"encoding/json"
	"testing"
)

func FuzzAppendedStringsAreJSON(f *testing.F) {
	for _, s := range []string{"", "read:orders", `a"b\c`, "é\u2028\x00\x7f", "<script>", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var got, want string
		appended := AppendString(nil, s)
		if err := json.Unmarshal(appended, &got); err != nil {
			t.Fatalf("%q: %v", appended, err)
		}
		plain, _ := json.Marshal(s)
		if err := json.Unmarshal(plain, &want); err != nil || got != want {
			t.Errorf("%q reads as %q, not %q", appended, got, want)
		}
		if s == "" {
			if b := AppendMember([]byte("{"), `,"x":`, s); string(b) != "{" {
				t.Errorf("an empty member is written: %s", b)
			}
		}
	})
}
