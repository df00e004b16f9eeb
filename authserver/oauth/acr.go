package oauth

// Values of `acr`: how a person proved who it is.
const (
	// ACRPassword: by a password.
	ACRPassword = "urn:gatehouse:acr:password"
	// ACROTP: by a password, and a code of an app or a recovery code.
	ACROTP = "urn:gatehouse:acr:otp"
	// ACRSecondPasskey: by a password and a passkey.
	ACRSecondPasskey = "urn:gatehouse:acr:password-passkey"
	// ACRPasskey: by a passkey that verified its user.
	ACRPasskey = "urn:gatehouse:acr:passkey"
)

// methods are the `amr` values of each acr (RFC 8176, 2).
var methods = map[string][]string{
	ACRPassword:      {"pwd"},
	ACROTP:           {"pwd", "otp", "mfa"},
	ACRSecondPasskey: {"pwd", "pop", "mfa"},
	ACRPasskey:       {"pop", "user", "mfa"},
}

// Methods returns the `amr` of an acr, nil for one that is not of this list.
// It must not be changed.
func Methods(acr string) []string { return methods[acr] }

// strengths order the values of `acr` that sign-ins here can have.
var strengths = map[string]int{ACRPassword: 1, ACROTP: 2, ACRSecondPasskey: 3, ACRPasskey: 3}

// ACRMeets reports whether a sign-in of a kind is what one of wanted asks for,
// or stronger. Values that this server does not know are no wish (OpenID
// Connect Core, 5.5.1.1 has them voluntary); without any other every kind is
// right.
func ACRMeets(acr string, wanted []string) bool {
	known := false
	for _, w := range wanted {
		least, ok := strengths[w]
		if ok && strengths[acr] >= least {
			return true
		}
		known = known || ok
	}
	return !known
}
