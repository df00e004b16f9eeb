package routes

import "time"

// Interaction is who shows people the pages of the authorization server.
type Interaction struct {
	Mode string `yaml:"mode"` // pages (default) | headless
	URL  string `yaml:"url"`  // the operator's page; with headless
}

// Unusual is what follows behaviour that is allowed and looks like somebody
// else's.
type Unusual struct {
	Refresh    string `yaml:"refresh"`     // off | notify (default) | revoke
	NewCountry string `yaml:"new_country"` // off (default) | notify | revoke
	Failures   string `yaml:"failures"`    // off | notify (default)
	Countries  string `yaml:"countries"`   // file: which networks are in which country
}

// LDAP is a directory whose people may sign in.
type LDAP struct {
	Pos          Pos                 `yaml:"-"`
	URLs         []string            `yaml:"urls"` // ldaps:// or ldap://; the first that answers
	CA           string              `yaml:"ca"`   // file; default: the system's
	StartTLS     bool                `yaml:"start_tls"`
	BindDN       string              `yaml:"bind_dn"`
	BindPassword Secret              `yaml:"bind_password"`
	Base         string              `yaml:"base"`
	Filter       string              `yaml:"filter"` // default (uid={name})
	Attributes   LDAPAttributes      `yaml:"attributes"`
	Groups       LDAPGroups          `yaml:"groups"`
	Roles        map[string][]string `yaml:"roles"`       // group to roles
	Timeout      time.Duration       `yaml:"timeout"`     // default 3s
	Connections  int                 `yaml:"connections"` // default 8
	Recheck      *time.Duration      `yaml:"recheck"`     // default 5m; 0: people are not looked after
	OnFailure    string              `yaml:"on_failure"`  // open (default) | closed
}

// Upstream is another OpenID Connect provider with which people may sign in.
type Upstream struct {
	Pos          Pos                 `yaml:"-"`
	Name         string              `yaml:"name"`
	Title        string              `yaml:"title"` // default: the name
	Issuer       string              `yaml:"issuer"`
	ClientID     string              `yaml:"client_id"`
	ClientSecret Secret              `yaml:"client_secret"`
	Scopes       []string            `yaml:"scopes"`  // default profile, email
	Linking      string              `yaml:"linking"` // none (default) | verified_email
	GroupsClaim  string              `yaml:"groups_claim"`
	Roles        map[string][]string `yaml:"roles"` // group to roles
}

// LDAPAttributes are the attributes of people.
type LDAPAttributes struct {
	ID          string `yaml:"id"`           // default entryUUID
	Name        string `yaml:"name"`         // default uid
	Email       string `yaml:"email"`        // default mail
	DisplayName string `yaml:"display_name"` // default cn
	MemberOf    string `yaml:"member_of"`    // default: none
}

// LDAPGroups is where groups are, if they are searched.
type LDAPGroups struct {
	Base   string `yaml:"base"`
	Filter string `yaml:"filter"` // default (member={dn})
	Name   string `yaml:"name"`   // default cn
}
