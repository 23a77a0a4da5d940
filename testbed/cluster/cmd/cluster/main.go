//go:build linux

// Command cluster runs the test bed's Kubernetes by hand. The tests need it for nothing but to build it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/orb8/orb8/testbed/cluster"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// Once the first signal is handled the second one kills, should a command hang while it stops.
	context.AfterFunc(ctx, stop)
	err := newRootCommand().ExecuteContext(ctx)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		os.Exit(max(1, exit.ExitCode())) // the command on the node has said why
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "cluster",
		Short: "A real Kubernetes of one node on this machine, and nothing left of it afterwards",
		Long: `cluster runs etcd, kube-apiserver, kube-controller-manager, kube-scheduler, containerd, kubelet and kube-proxy ` +
			cluster.KubernetesVersion + `
in a mount and a network namespace and cgroups of their own. It needs root; to build it needs Go and Debian 12.`,
		Example: `  cluster build
  cluster up
  cluster kubectl run web --image=` + cluster.WorkloadImage + ` -- serve 8080
  cluster kubectl get pods -o wide
  cluster exec ip addr
  cluster down`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	name := root.PersistentFlags().String("name", "dev", "`NAME` of the cluster, of which there can be several")
	root.AddCommand(newBuildCommand(), newUpCommand(name), newDownCommand(name), newStatusCommand(name),
		newKubectlCommand(name), newExecCommand(name), newImportCommand(name), newServerCommand(name), newKwokCommand(name))
	return root
}

func newBuildCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "build",
		Short: "Build and download what is not in the cache yet",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cluster.Build(cmd.Context(), cmd.ErrOrStderr())
		},
	}
}

func newUpCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "up",
		Short: "Start a cluster that stays until `cluster down`",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cluster.Build(cmd.Context(), cmd.ErrOrStderr()); err != nil {
				return err
			}
			c, err := cluster.Up(cmd.Context(), *name)
			if err != nil {
				return err
			}
			cmd.Printf("node %s is ready; its administrator's kubeconfig, for use on the node, is %s\n", cluster.NodeName, c.Kubeconfig())
			return nil
		},
	}
}

func newDownCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "End the cluster and remove all of it, and what tests left that were killed",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return cluster.Down(*name) },
	}
}

func newStatusCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the daemons and their processes",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := cluster.Find(*name)
			if err != nil {
				return err
			}
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(table, "DAEMON\tPID\tLOG")
			for _, d := range c.Daemons() {
				pid := "-"
				if d.PID != 0 {
					pid = fmt.Sprint(d.PID)
				}
				fmt.Fprintf(table, "%s\t%s\t%s\n", d.Name, pid, d.Log)
			}
			return table.Flush()
		},
	}
}

func newKubectlCommand(name *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "kubectl ARGS...",
		Short:   "Run kubectl as the administrator",
		Example: "  cluster kubectl get pods -A",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := cluster.Find(*name)
			if err != nil {
				return err
			}
			kubectl, err := c.Kubectl(cmd.Context(), args...)
			return run(kubectl, err)
		},
	}
	cmd.Flags().SetInterspersed(false) // what follows the first argument is kubectl's own
	return cmd
}

func newExecCommand(name *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "exec COMMAND ARGS...",
		Short:   "Run a command on the node: in its namespaces and cgroups",
		Example: "  cluster exec conntrack -L",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := cluster.Find(*name)
			if err != nil {
				return err
			}
			command, err := c.Command(cmd.Context(), args[0], args[1:]...)
			return run(command, err)
		},
	}
	cmd.Flags().SetInterspersed(false) // what follows the command is its own
	return cmd
}

func newImportCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use:     "import FILE...",
		Short:   "Make container images known to the node, from OCI layouts or Docker archives as tar files",
		Example: "  cluster import bin/orb8-image-amd64.tar",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			c, err := cluster.Find(*name)
			if err != nil {
				return err
			}
			for _, file := range files {
				if err := c.Import(cmd.Context(), file); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func newServerCommand(name *string) *cobra.Command {
	actions := []string{"stop", "start"}
	return &cobra.Command{
		Use:       "apiserver stop|start",
		Short:     "Stop the API server, or start it again; pods run on meanwhile",
		ValidArgs: actions,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := cluster.Find(*name)
			if err != nil {
				return err
			}
			if slices.Index(actions, args[0]) == 0 {
				return c.StopAPIServer()
			}
			return c.StartAPIServer(cmd.Context())
		},
	}
}

func newKwokCommand(name *string) *cobra.Command {
	var nodes, pods int
	cmd := &cobra.Command{
		Use:     "kwok",
		Short:   "Add nodes and pods that exist in the API alone",
		Example: "  cluster kwok --nodes 1000 --pods 50000",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := cluster.Find(*name)
			if err != nil {
				return err
			}
			return c.Simulate(cmd.Context(), nodes, pods)
		},
	}
	cmd.Flags().IntVar(&nodes, "nodes", 10, "`NUMBER` of nodes")
	cmd.Flags().IntVar(&pods, "pods", 0, "`NUMBER` of pods, spread over the nodes; a node takes 250")
	return cmd
}

// run runs a command line with this process's own input and output.
func run(cmd *exec.Cmd, err error) error {
	if err != nil {
		return err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}
