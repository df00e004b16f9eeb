// Package slow holds the gateway against clients that are slow on purpose: a
// thousand connections of slowhttptest, while honest clients call.
//
// It owns the attack, the honest clients, and the comparison of what they wait
// with and without it. What one slow client is told is loadtest/edge. Everything
// here is tests.
//
//	go test ./loadtest/slow -run 'TestSlowConnections/body'
package slow
