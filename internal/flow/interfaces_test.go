package flow

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
)

func TestInterfacesSurviveTheRoundTrip(t *testing.T) {
	tests := map[string]struct {
		interfaces []string
		attributes map[string]any
	}{
		"at the socket": {nil, map[string]any{}},
		"one, by the name that everybody knows as well": {
			[]string{"eth0"}, map[string]any{AttrInterface: "eth0", AttrInterfaces: []any{"eth0"}},
		},
		"several": {[]string{"veth1", "br0", "eth0"}, map[string]any{AttrInterfaces: []any{"veth1", "br0", "eth0"}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := Record{
				Direction: Transit, Transport: UDP, Interfaces: tt.interfaces,
				Source:      Endpoint{Addr: netip.MustParseAddrPort("10.0.0.1:1")},
				Destination: Endpoint{Addr: netip.MustParseAddrPort("10.0.0.2:2")},
			}
			lr := plog.NewLogRecord()
			r.PutTo(lr)
			attributes := map[string]any{}
			for _, key := range []string{AttrInterface, AttrInterfaces} {
				if v, ok := lr.Attributes().Get(key); ok {
					attributes[key] = v.AsRaw()
				}
			}
			assert.Equal(t, tt.attributes, attributes)
			got, err := RecordFrom(pcommon.NewResource(), lr)
			require.NoError(t, err)
			assert.Equal(t, tt.interfaces, got.Interfaces)
			assert.Equal(t, Transit, got.Direction)
		})
	}
}

func TestDirectionsByName(t *testing.T) {
	for _, d := range []Direction{Ingress, Egress, Transit} {
		got, err := ParseDirection(d.String())
		require.NoError(t, err)
		assert.Equal(t, d, got)
	}
	_, err := ParseDirection("sideways")
	assert.EqualError(t, err, `direction "sideways": use ingress, egress or transit`)
}
