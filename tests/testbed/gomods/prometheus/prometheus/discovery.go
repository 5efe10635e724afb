// Prometheus with the one service discovery that a laboratory uses, and without those of cloud providers.
package main

import _ "github.com/prometheus/prometheus/discovery/kubernetes"
