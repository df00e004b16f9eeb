package authserver

import "testing"

// A theme that changes nothing has every state of every built-in page rendered
// in every language; a start without a theme does not do that again.
func TestBuiltInPagesShowEveryStateInEveryLanguage(t *testing.T) {
	if err := CheckFiles(t.TempDir(), ""); err != nil {
		t.Fatal(err)
	}
}
