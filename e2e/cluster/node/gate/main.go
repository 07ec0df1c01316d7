// Command gate is a CNI plugin, last in its chain: it holds a new pod's start
// until the NetworkPolicy enforcer has rules for the pod's address.
//
// Without it a container would run for up to a second before the kubelet has
// reported its address, and nothing would isolate it in that second. It is a
// program of its own because it runs once per pod and must start at once.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

const patience = 10 * time.Second

// request is one line to the enforcer; it answers "ok" or what went wrong.
type request struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	IP        string `json:"ip"`
}

type configuration struct {
	CNIVersion string          `json:"cniVersion"`
	Socket     string          `json:"socket"`
	PrevResult json.RawMessage `json:"prevResult"`
}

type result struct {
	IPs []struct {
		Address string `json:"address"`
	} `json:"ips"`
}

func main() {
	if err := run(os.Getenv("CNI_COMMAND"), os.Stdin, os.Stdout); err != nil {
		failure := map[string]any{"cniVersion": "0.4.0", "code": 11, "msg": err.Error()} // 11: try again later
		_ = json.NewEncoder(os.Stdout).Encode(failure)                                   // nobody is left to tell
		os.Exit(1)
	}
}

func run(command string, input io.Reader, output io.Writer) error {
	switch command {
	case "VERSION":
		_, err := fmt.Fprintln(output, `{"cniVersion":"0.4.0","supportedVersions":["0.3.1","0.4.0","1.0.0"]}`)
		return err
	case "ADD":
		return add(input, output)
	}
	return nil
}

func add(input io.Reader, output io.Writer) error {
	var wanted configuration
	if err := json.NewDecoder(input).Decode(&wanted); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	var previous result
	if err := json.Unmarshal(wanted.PrevResult, &previous); err != nil {
		return fmt.Errorf("result of the plugin before: %w", err)
	}
	arguments := parse(os.Getenv("CNI_ARGS"))
	for _, each := range previous.IPs {
		address, _, err := net.ParseCIDR(each.Address)
		if err != nil {
			return err
		}
		asked := request{arguments["K8S_POD_NAMESPACE"], arguments["K8S_POD_NAME"], address.String()}
		if err := announce(wanted.Socket, asked); err != nil {
			return fmt.Errorf("NetworkPolicy enforcer: %w", err)
		}
	}
	_, err := output.Write(wanted.PrevResult)
	return err
}

func parse(arguments string) map[string]string {
	parsed := map[string]string{}
	for _, pair := range strings.Split(arguments, ";") {
		name, value, _ := strings.Cut(pair, "=")
		parsed[name] = value
	}
	return parsed
}

// announce waits for the enforcer. No socket means that it is switched off; a
// socket that nobody answers means that it died, and then nothing may start.
func announce(socket string, asked request) error {
	connection, err := net.DialTimeout("unix", socket, patience)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if err := json.NewEncoder(connection).Encode(asked); err != nil {
		return err
	}
	answer, err := io.ReadAll(connection)
	if err != nil {
		return err
	}
	if string(answer) != "ok" {
		return fmt.Errorf("expected ok, found %q", answer)
	}
	return nil
}
