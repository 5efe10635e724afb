// gVisor's shim for containerd. Its manager is copied in beside this file when it is built, with one constant changed;
// what the copy takes from its own package and is not in that file stands here.
package main

import (
	"context"

	"github.com/containerd/containerd/v2/pkg/shim"
	_ "gvisor.dev/gvisor/pkg/shim/v1/plugin"
)

func main() { shim.Run(context.Background(), NewShimManager("io.containerd.runsc.v1")) }

const (
	// The annotation by which containers of one pod share a shim.
	kubernetesGroupAnnotation = "io.kubernetes.cri.sandbox-id"
	// File with the address of the shim's socket.
	shimAddressPath = "address"
)

// The part of a container's configuration that the manager reads.
type spec struct {
	Annotations map[string]string `json:"annotations,omitempty"`
}
