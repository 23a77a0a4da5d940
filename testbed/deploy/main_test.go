//go:build linux

package deploy

import (
	"crypto/tls"
	"fmt"
	"os"
	"testing"
)

// dialVariable makes the test binary a TLS client without a certificate, of the address that it has; it says how it fared.
const dialVariable = "ORB8_TESTBED_DIAL"

func TestMain(m *testing.M) {
	if address := os.Getenv(dialVariable); address != "" {
		fmt.Println(greet(address))
		return
	}
	os.Exit(m.Run())
}

// greet connects and reads: a server that refuses a client says so after the handshake.
func greet(address string) error {
	// Whom it talks to does not matter here.
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Read(make([]byte, 1))
	return err
}
