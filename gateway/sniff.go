package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// serverKind is one of the two servers that can serve a connection.
type serverKind int

const (
	serverHTTP serverKind = iota
	serverGRPC
	doorCount
)

const contentTypeGRPC = "application/grpc"

// Initial sizes of HTTP/2, before settings are exchanged.
const (
	defaultFrameBytes = 16 << 10
	defaultTableBytes = 4 << 10
)

// errQuiet ends a connection that was closed before it sent anything, as by a port check.
var errQuiet = errors.New("closed without sending anything")

// sniffer reads the beginning of a plaintext connection and keeps it for the server of the
// connection. With TLS, ALPN would do instead: gRPC clients offer only h2, and clients that also
// offer http/1.1 would get that.
type sniffer struct {
	conn net.Conn
	opts *Options
	// head is what was read; acknowledged: the acknowledgement of the sniffer's SETTINGS was read,
	// and removed from head.
	head         bytes.Buffer
	http2        bool
	acknowledged bool
}

// Read reads from the connection into head as well.
func (s *sniffer) Read(p []byte) (int, error) {
	room := s.opts.MaxSniffBytes - s.head.Len()
	if room <= 0 {
		return 0, fmt.Errorf("no complete request in the first %d bytes", s.opts.MaxSniffBytes)
	}
	n, err := s.conn.Read(p[:min(len(p), room)])
	s.head.Write(p[:n])
	return n, err
}

// sniff returns which server a connection goes to. It returns within SniffTimeout, having read at
// most MaxSniffBytes.
func (s *sniffer) sniff() (serverKind, error) {
	deadline := time.Now().Add(s.opts.SniffTimeout) // the network's deadlines are on the wall clock
	if err := s.conn.SetDeadline(deadline); err != nil {
		return 0, err
	}
	to, err := s.read()
	if err != nil {
		return 0, err
	}
	return to, s.conn.SetDeadline(time.Time{})
}

func (s *sniffer) read() (serverKind, error) {
	var err error
	if s.http2, err = s.readPreface(); err != nil || !s.http2 {
		return serverHTTP, err
	}
	framer := http2.NewFramer(s.conn, s)
	framer.SetMaxReadFrameSize(defaultFrameBytes)
	framer.ReadMetaHeaders = hpack.NewDecoder(defaultTableBytes, nil)
	framer.MaxHeaderListSize = uint32(s.opts.MaxHeaderBytes) //nolint:gosec // a small positive number
	if err := framer.WriteSettings(s.opts.earlySettings()...); err != nil {
		return 0, fmt.Errorf("send settings: %w", err)
	}
	return s.readFrames(framer)
}

// earlySettings are sent before the server of the connection is known. Both servers send the same
// again. Settings that only one of them would send must not be in here, since settings hold until
// they are changed.
func (o *Options) earlySettings() []http2.Setting {
	return []http2.Setting{
		{ID: http2.SettingMaxConcurrentStreams, Val: uint32(o.MaxStreams)},  //nolint:gosec // a small positive number
		{ID: http2.SettingMaxHeaderListSize, Val: uint32(o.MaxHeaderBytes)}, //nolint:gosec // a small positive number
	}
}

// readPreface reports whether the client speaks HTTP/2. It reads only as far as needed.
func (s *sniffer) readPreface() (bool, error) {
	var buf [len(http2.ClientPreface)]byte
	for n := 0; n < len(buf); {
		read, err := s.Read(buf[n:])
		n += read
		if string(buf[:n]) != http2.ClientPreface[:n] {
			return false, nil
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF) && n == 0:
			return false, errQuiet
		default:
			return false, fmt.Errorf("read the preface: %w", err)
		}
	}
	return true, nil
}

// readFrames reads up to the first request.
func (s *sniffer) readFrames(framer *http2.Framer) (serverKind, error) {
	opened := false // the client's own settings have come
	for {
		whole := s.head.Len()
		frame, err := framer.ReadFrame()
		if err != nil {
			waiting := opened && whole == s.head.Len() // not in the middle of a frame
			return s.readFailed(framer, err, waiting)
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				opened = true
			} else if !s.acknowledged {
				s.acknowledged = true
				s.head.Truncate(whole)
			}
		case *http2.MetaHeadersFrame:
			return serverFor(frame), nil
		case *http2.GoAwayFrame:
			return 0, errQuiet
		}
	}
}

// readFailed decides about a connection whose next frame could not be read.
func (s *sniffer) readFailed(framer *http2.Framer, err error, waiting bool) (serverKind, error) {
	var broken http2.ConnectionError
	switch {
	case waiting && errors.Is(err, os.ErrDeadlineExceeded):
		return serverGRPC, nil // a channel without a call yet
	case waiting && errors.Is(err, io.EOF):
		return 0, errQuiet
	case errors.As(err, new(http2.StreamError)):
		return serverHTTP, nil // only the request is bad: net/http refuses it
	case errors.As(err, &broken):
		_ = framer.WriteGoAway(0, http2.ErrCode(broken), nil) // the connection is closed in any case
	}
	return 0, fmt.Errorf("read the first request: %w", err)
}

// serverFor returns the server for the first request, by its content type.
func serverFor(request *http2.MetaHeadersFrame) serverKind {
	for _, field := range request.RegularFields() {
		if field.Name == "content-type" && isNativeGRPC(field.Value) {
			return serverGRPC
		}
	}
	return serverHTTP
}

// isNativeGRPC distinguishes gRPC from gRPC-Web, which has the same prefix.
func isNativeGRPC(contentType string) bool {
	rest, found := strings.CutPrefix(contentType, contentTypeGRPC)
	return found && (rest == "" || rest[0] == '+' || rest[0] == ';')
}
