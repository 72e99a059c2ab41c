// Reads docker-compose.yml with the library that Docker Compose itself reads it with, where no Docker is installed:
// `go run . ../../../docker-compose.yml [PROFILE]`. It prints what is wrong, and leaves with status 1.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	options, err := cli.NewProjectOptions(os.Args[1:2], cli.WithProfiles(os.Args[2:]), cli.WithResolvedPaths(true))
	if err == nil {
		_, err = options.LoadProject(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
