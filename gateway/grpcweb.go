package gateway

import (
	"encoding/base64"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
)

// The parts of a status of gRPC.
const (
	headerGRPCStatus  = "grpc-status"
	headerGRPCMessage = "grpc-message"
	headerGRPCDetails = "grpc-status-details-bin"
)

// closeWeb ends a response of gRPC-Web with the frame of its trailers. Trailers are always in the
// body, also where there is no message: a page of another origin could not read them in headers
// that are not exposed to it.
func (c *rpcCall) closeWeb(e ending) {
	if c.contentType == "" {
		c.contentType = contentTypeGRPCWeb
	}
	c.begin()
	var block strings.Builder
	for _, line := range e.grpcTrailers() {
		block.WriteString(line[0] + ": " + line[1] + "\r\n")
	}
	c.writeFrame(flagWebTrailer, []byte(block.String()))
}

// closeGRPC ends a call of native gRPC that never ran: its trailers are the headers of the
// response.
func (c *rpcCall) closeGRPC(e ending) {
	header := c.w.Header()
	header.Set("Content-Type", contentTypeGRPC)
	for _, line := range e.grpcTrailers() {
		header.Add(line[0], line[1])
	}
	c.w.WriteHeader(http.StatusOK)
}

// grpcTrailers returns name and value of every trailer: the status first, the others by name.
func (e ending) grpcTrailers() [][2]string {
	lines := [][2]string{{headerGRPCStatus, strconv.Itoa(int(e.status.GetCode()))}}
	if message := e.status.GetMessage(); message != "" {
		lines = append(lines, [2]string{headerGRPCMessage, escape(message)})
	}
	if len(e.status.GetDetails()) > 0 {
		if details, err := proto.Marshal(e.status); err == nil {
			lines = append(lines, [2]string{headerGRPCDetails, base64.RawStdEncoding.EncodeToString(details)})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.trailer)) {
		for _, value := range e.trailer[name] {
			lines = append(lines, [2]string{name, value})
		}
	}
	return lines
}

// escape encodes a text for grpc-message: what is no printable ASCII, and %, as %XX. Bytes are
// escaped one by one, so that UTF-8 comes out again as it was.
func escape(text string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; c >= ' ' && c <= '~' && c != '%' {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return b.String()
}
