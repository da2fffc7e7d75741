// Package pins holds what the suites read out of other modules without building it, so that `go mod tidy` keeps it.
package pins

import (
	_ "sigs.k8s.io/gateway-api/apis/v1" // its CRDs lie in the module
)
