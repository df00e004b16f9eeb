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
