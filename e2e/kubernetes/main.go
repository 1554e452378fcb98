// Command kubernetes is the real Kubernetes in one executable, for tests on machines where no
// release archive or container image can be had. Called through a link named after a program
// (etcd, kube-apiserver, ...) it is that program; `kubernetes NAME ARGS...` does the same.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// run starts one program with the arguments that follow its name and returns its exit code.
type run func(args []string) int

// cobraProgram runs a program whose entry point builds a command; the command reads os.Args.
func cobraProgram(build func() *cobra.Command) run {
	return func(args []string) int {
		os.Args = args
		return cli.Run(build())
	}
}

func programs() map[string]run {
	return map[string]run{
		"etcd": func(args []string) int {
			etcdmain.Main(args)
			return 0
		},
		"kube-apiserver":          cobraProgram(apiserver.NewAPIServerCommand),
		"kube-controller-manager": cobraProgram(controllermanager.NewControllerManagerCommand),
		"kube-scheduler":          cobraProgram(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
		"kubelet":                 cobraProgram(func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) }),
		"kubectl":                 cobraProgram(kubectl.NewDefaultKubectlCommand),
	}
}

func main() {
	all := programs()
	args := append([]string{filepath.Base(os.Args[0])}, os.Args[1:]...)
	if _, linked := all[args[0]]; !linked {
		args = args[1:]
	}
	if len(args) > 0 {
		if program, known := all[args[0]]; known {
			os.Exit(program(args))
		}
	}
	var names []string
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	fmt.Fprintf(os.Stderr, "usage: kubernetes PROGRAM [ARGUMENTS]\nprograms: %s\n", strings.Join(names, ", "))
	os.Exit(2)
}
