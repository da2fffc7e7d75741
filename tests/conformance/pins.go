// Package pins holds what is built from other modules, so that `go mod tidy` keeps it.
package pins

import (
	_ "sigs.k8s.io/gateway-api/conformance"
)
