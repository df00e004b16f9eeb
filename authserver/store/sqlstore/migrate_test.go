package sqlstore

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"path"
	"regexp"
	"strings"
	"testing"
)

// released are the migrations that databases may have run: their sums never
// change, since nobody runs them again.
var released = map[string]string{
	"00001_initial.sql":         "a8f28dbdea3d9445f13c83d912434c6176d689f93d287629ee346f48c8b14a9e",
	"00010_sender.sql":          "e5ac7d94a36344397acb8dce065ba5965881399d0af2268d687c6923f5a0e19f",
	"00020_client_settings.sql": "f9aeea8038d7ad46e6bd2ffca14e46128223b874a9b19b24b329d7dbead74ac1",
	"00021_devices.sql":         "b10d26e2789ccfda50824fd6998624fb3f3f0e73f2d438476182b410a3728efb",
	"00022_tallies.sql":         "8cb19330c008bba2c7af81b2851e434597084d1fe8bdc399e7f792fc7f30d6ec",
	"00023_logouts.sql":         "15e33af773546eff2d8ea3ad422cb59d27df3ff0656d4f1a0ba34bbc23f20cc3",
	"00024_registrations.sql":   "eb425045747eaa6aeabc1168c64cc47ab8d69cccbc966fb3477770299bf56b71",
	"00030_people.sql":          "24deca141441afdd6ecf1bbeb5a18209922c0a362d46af505a5cfd472dbb1a98",
	"00040_audit_chain.sql":     "1a7ac6552281c6b1b85de5b94cd4ed7ceb377d3afef3b100a998ead475e1c419",
	"00041_identities.sql":      "484e39fd18e9472a316edc446892b377060be61b2171e583807a94a4303e217a",
}

func migrationFiles(t *testing.T) map[string]string {
	t.Helper()
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, name := range names {
		content, err := migrations.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all[path.Base(name)] = string(content)
	}
	return all
}

func TestReleasedMigrationsDoNotChange(t *testing.T) {
	all := migrationFiles(t)
	for name, want := range released {
		sum := sha256.Sum256([]byte(all[name]))
		if hex.EncodeToString(sum[:]) != want {
			t.Errorf("%s is not what databases have run", name)
		}
	}
}

var (
	sqlComment  = regexp.MustCompile(`(?m)--.*$`)
	createdName = regexp.MustCompile(`(?i)^CREATE TABLE (\w+)`)
	// What the program before a migration can live with: it neither misses
	// something nor has to fill in something that it does not know.
	addition = regexp.MustCompile(`(?i)^(CREATE TABLE \w+|CREATE INDEX \w+ ON \w+|ALTER TABLE \w+ ADD COLUMN \w+|INSERT INTO \w+|UPDATE \w+)\b`)
	required = regexp.MustCompile(`(?i)^ALTER TABLE .* NOT NULL`)
	provided = regexp.MustCompile(`(?i)\bDEFAULT\b`)
)

// onlyAdds reports what of a migration the program before it could trip over
// (expand and contract: what is not needed any more goes one release later).
func onlyAdds(text string) (trips []string) {
	created := map[string]bool{}
	for statement := range strings.SplitSeq(sqlComment.ReplaceAllString(text, ""), ";") {
		statement = strings.TrimSpace(statement)
		if m := createdName.FindStringSubmatch(statement); m != nil {
			created[m[1]] = true
		}
		on := regexp.MustCompile(`(?i)^CREATE UNIQUE INDEX \w+ ON (\w+)`).FindStringSubmatch(statement)
		switch {
		case statement == "", on != nil && created[on[1]]:
		case !addition.MatchString(statement), required.MatchString(statement) && !provided.MatchString(statement):
			trips = append(trips, statement)
		}
	}
	return trips
}

func TestMigrationsOnlyAdd(t *testing.T) {
	for name, text := range migrationFiles(t) {
		for _, statement := range onlyAdds(text) {
			t.Errorf("%s: the version before cannot live with %q", name, statement)
		}
	}
	f := func(text string, trips int) {
		t.Helper()
		if got := onlyAdds(text); len(got) != trips {
			t.Errorf("%s: %q", text, got)
		}
	}
	f("ALTER TABLE users ADD COLUMN a TEXT;", 0)
	f("ALTER TABLE users ADD COLUMN a TEXT NOT NULL DEFAULT '';", 0)
	f("ALTER TABLE users ADD COLUMN a TEXT NOT NULL;", 1)
	f("ALTER TABLE users RENAME COLUMN a TO b;", 1)
	f("ALTER TABLE users DROP COLUMN a; DROP TABLE users; DROP INDEX i;", 3)
	f("ALTER TABLE users ALTER COLUMN a SET NOT NULL;", 1)
	f("CREATE UNIQUE INDEX i ON users (a);", 1)
	f("CREATE TABLE new (a TEXT NOT NULL); CREATE UNIQUE INDEX i ON new (a); -- DROP TABLE users;", 0)
	f("DELETE FROM users;", 1)
}
