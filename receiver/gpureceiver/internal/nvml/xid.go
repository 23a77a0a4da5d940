package nvml

// Severity of an XID error: what it takes to go on.
type Severity int

// Severities. What NVIDIA's catalogue does not tell is an Error.
const (
	// Notice changes nothing for programs: the driver took care of it.
	Notice Severity = iota
	// Program is an error of a program, which it ends or has ended; the GPU goes on.
	Program
	// Error may be of the program, the driver or the hardware; who uses the GPU is likely to fail.
	Error
	// Hardware leaves the GPU unusable until it is reset, or for good.
	Hardware
)

type xid struct {
	severity Severity
	text     string
}

// xids are those of NVIDIA's public catalogue ("XID Errors", GPU Deployment and Management Documentation) that are met on servers.
var xids = map[uint64]xid{
	8:   {Error, "the GPU stopped processing"},
	12:  {Error, "the driver could not handle an exception of the GPU"},
	13:  {Program, "exception of the graphics engine, as of an access out of bounds"},
	16:  {Error, "the display engine hung"},
	18:  {Error, "bus mastering is off in the PCI configuration"},
	31:  {Program, "page fault of GPU memory, as of an illegal address"},
	32:  {Error, "invalid or corrupted stream of commands"},
	38:  {Error, "error of the driver's firmware"},
	43:  {Program, "the GPU stopped processing for a program that erred"},
	44:  {Error, "fault of the graphics engine in a context switch"},
	45:  {Program, "channels were removed after an error before, or as a program was killed"},
	46:  {Error, "the GPU stopped processing"},
	48:  {Hardware, "double-bit error of memory"},
	54:  {Hardware, "auxiliary power is not connected"},
	56:  {Error, "error of the display engine"},
	57:  {Error, "error in programming the video memory interface"},
	58:  {Error, "video memory is unstable"},
	59:  {Error, "internal error of the controller"},
	60:  {Error, "exception of the video processor"},
	61:  {Error, "internal breakpoint of the controller"},
	62:  {Hardware, "the internal controller halted"},
	63:  {Notice, "a row of memory will be remapped, or a page was retired"},
	64:  {Hardware, "a row of memory could not be remapped, or a page not be retired"},
	65:  {Error, "exception of the video processor"},
	66:  {Error, "illegal access by the driver"},
	67:  {Error, "illegal access by the driver"},
	68:  {Program, "exception of the video decoder"},
	69:  {Program, "error of the graphics class"},
	70:  {Error, "fault of a copy engine"},
	71:  {Error, "fault of a copy engine"},
	72:  {Error, "fault of a copy engine"},
	73:  {Error, "error of the video encoder"},
	74:  {Error, "error of NVLink"},
	76:  {Error, "error of the video encoder"},
	77:  {Error, "error of the video encoder"},
	78:  {Error, "a vGPU could not start"},
	79:  {Hardware, "the GPU has fallen off the bus"},
	80:  {Error, "corrupted data was sent to the GPU"},
	81:  {Hardware, "error of the VGA subsystem"},
	92:  {Notice, "many single-bit errors of memory"},
	93:  {Notice, "the InfoROM is written more often than it should be"},
	94:  {Error, "error of memory that was contained: only the programs that met it are ended"},
	95:  {Hardware, "error of memory that was not contained: all programs of the GPU are affected"},
	96:  {Error, "error of the video decoder"},
	109: {Error, "a context switch took too long"},
	110: {Hardware, "security fault"},
	119: {Hardware, "the GPU's system processor (GSP) does not answer"},
	120: {Hardware, "error of the GPU's system processor (GSP)"},
	121: {Notice, "corrected error of the link between chips"},
	122: {Error, "the SPI flash could not be read"},
	123: {Error, "the SPI flash could not be written"},
	124: {Error, "the SPI flash could not be erased"},
	125: {Error, "error of the InfoROM"},
	136: {Hardware, "a link between chips could not be trained"},
	137: {Program, "access over NVLink without a right to it"},
	140: {Hardware, "error of memory that was not recovered"},
	143: {Hardware, "the GPU could not be initialised"},
	144: {Error, "error of NVLink"},
	145: {Error, "error of NVLink"},
	146: {Error, "error of NVLink"},
	147: {Error, "error of NVLink"},
	148: {Error, "error of NVLink"},
	149: {Error, "error of NVLink"},
	150: {Error, "error of NVLink"},
	154: {Error, "what it takes to recover the GPU has changed"},
	155: {Error, "error of NVLink"},
	156: {Notice, "a part of the GPU was retired"},
	157: {Hardware, "a part of the GPU could not be retired"},
	158: {Hardware, "the GPU did not answer in time"},
	160: {Notice, "a channel of memory was retired"},
	161: {Hardware, "a channel of memory could not be retired"},
}

// DescribeXID says what an XID error is, and how bad.
func DescribeXID(code uint64) (text string, severity Severity) {
	x, ok := xids[code]
	if !ok {
		return "see NVIDIA's catalogue of XID errors", Error
	}
	return x.text, x.severity
}
