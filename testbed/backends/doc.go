// Package backends runs the log engines that orb8_storage can keep its records in, of programs that Build makes once and keeps
// outside the tree: VictoriaLogs, alone and as a cluster, and Loki. It also has Prometheus, for what a gateway sends on.
//
// Each engine has a module of its own here, whose go.sum pins all that its program is made of.
package backends
