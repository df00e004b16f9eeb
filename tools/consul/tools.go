//go:build tools

// Package tools pins the Consul that tests run against: the last 1.13 release,
// under the MPL-2.0. It owns the version and nothing else, in a module of its
// own so that none of Consul's dependencies enters gatehouse.
//
//	tools/consul/build.sh   # leaves the binary where tests look for it
package tools

import _ "github.com/hashicorp/consul"
