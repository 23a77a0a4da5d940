package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// each makes the setter of a flag that may be repeated and takes several values between commas.
func each[T any](dst *[]T, parse func(string) (T, error)) func(string) error {
	return func(list string) error {
		for s := range strings.SplitSeq(list, ",") {
			v, err := parse(strings.TrimSpace(s))
			if err != nil {
				return err
			}
			*dst = append(*dst, v)
		}
		return nil
	}
}

// oneOf makes the setter of a flag that takes one of a few words.
func oneOf(dst *string, words []string) func(string) error {
	return func(s string) error {
		if !slices.Contains(words, s) {
			return errors.New("use " + anyOf(words))
		}
		*dst = s
		return nil
	}
}

// complete makes the shell offer words for a flag, also after a comma.
func complete(cmd *cobra.Command, flag string, words []string) {
	completeWords(cmd, flag, func() []string { return words })
}

// completeWords is complete for words that are known only when the flags before have been read.
func completeWords(cmd *cobra.Command, flag string, words func() []string) {
	offer := func(_ *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		before := typed[:strings.LastIndexByte(typed, ',')+1]
		var offers []cobra.Completion
		for _, word := range words() {
			offers = append(offers, before+word)
		}
		return offers, cobra.ShellCompDirectiveNoFileComp
	}
	// It fails only for a flag that does not exist.
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc(flag, offer))
}

func protocolNames() []string { return []string{"tcp", "udp", "icmp", "ipv6-icmp", "sctp"} }

func outcomeNames() []string { return []string{"closed", "reset", "refused", "timeout"} }

func parseOutcome(s string) (string, error) {
	outcome := strings.ToLower(s)
	if !slices.Contains(outcomeNames(), outcome) {
		return "", fmt.Errorf("%q is unknown; use %s", s, anyOf(outcomeNames()))
	}
	return outcome, nil
}

func parseName(s string) (string, error) {
	if s == "" {
		return "", errors.New("a name must not be empty")
	}
	return s, nil
}

func parseIP(s string) (string, error) {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		return addr.String(), nil
	}
	if prefix, err := netip.ParsePrefix(s); err == nil {
		return prefix.String(), nil
	}
	return "", fmt.Errorf("%q is neither; use an address such as 10.0.0.7 or fe80::1, or a prefix such as 10.0.0.0/8", s)
}

func parsePort(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is no port; use a number from 1 to 65535", s)
	}
	return uint32(n), nil
}

// parseProtocol returns the name that the API uses.
func parseProtocol(s string) (string, error) {
	name := strings.ToLower(s)
	if name == "icmpv6" || name == "icmp6" {
		return "ipv6-icmp", nil
	}
	if slices.Contains(protocolNames(), name) {
		return name, nil
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return "", fmt.Errorf("%q is unknown; use %s", s, anyOf(append(protocolNames(), "a number from 0 to 255")))
	}
	return strconv.FormatUint(n, 10), nil
}

func parseDirection(s string) (orb8v1.Direction, error) {
	switch strings.ToLower(s) {
	// What the DIR column of the tables says is good as well.
	case "ingress", "in":
		return orb8v1.Direction_DIRECTION_INGRESS, nil
	case "egress", "out":
		return orb8v1.Direction_DIRECTION_EGRESS, nil
	case "transit", "via":
		return orb8v1.Direction_DIRECTION_TRANSIT, nil
	}
	return 0, fmt.Errorf("%q is unknown; use ingress, egress or transit", s)
}

// anyOf joins words as a sentence does: "a, b or c".
func anyOf(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
