// Package edge holds the black-box tests of the gateway as an HTTP proxy: bytes
// go in on a socket, bytes arrive at a scripted origin, and both are compared.
//
// It owns the request matrix (tests named S… and P… after what they promise), for
// HTTP/1.1 and with frames for HTTP/2, the cases of lists that others made, the
// plugins over HTTP/2 and gRPC, the framing matrix, content of any size, and the
// limits; the corpus of desynchronisation attacks that it runs is loadtest/desync.
// The gateway is a real process (loadtest/rig). It owns no code of the product:
// everything here is tests.
//
//	go test ./loadtest/edge -run 'TestS13'
package edge
