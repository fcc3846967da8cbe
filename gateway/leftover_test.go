package gateway_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/millrace-io/millrace/entities"
)

// TestALeftOverBodyIsNoRequest: a call over HTTP/1.1 ends before its body has been read. What is
// left of the body is not taken for the next request of the connection.
func TestALeftOverBodyIsNoRequest(t *testing.T) {
	const path = "/shop.v1.StreamService/In"
	refuse := func(context.Context, *entities.Stream) error {
		return &entities.Error{
			Reason: entities.FunctionRefused, Code: uint32(codes.FailedPrecondition), Outcome: entities.Refused, Message: "no",
		}
	}
	for _, contentType := range []string{
		"application/grpc-web+proto", "application/grpc-web-text+proto", "application/connect+proto",
		"application/connect+json",
	} {
		for _, most := range []int{0, 1 << 10} {
			fake := &dispatcher{stream: refuse, unary: func(context.Context, *entities.Command) (*entities.Reply, error) {
				return nil, entities.Errorf(entities.Internal, entities.Unknown, "a body was served")
			}}
			w := newWorld(t, fake, nil)
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", w.addr)
			if err != nil {
				t.Fatal(err)
			}
			if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			hidden := "POST /shop.v1.CartService/Plain HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
			body := frame(0, "\x0a\x01a") + hidden + strings.Repeat("x", most)
			rest := body[len(frame(0, "\x0a\x01a")):]
			if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
				path, contentType, len(body), strings.TrimSuffix(body, rest)); err != nil {
				t.Fatal(err)
			}
			from := bufio.NewReader(conn)
			for n := range 3 { // as many responses as the connection gives
				response, err := http.ReadResponse(from, nil)
				if err != nil {
					break
				}
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
				if n == 1 && response.StatusCode != http.StatusNotFound || n == 2 {
					t.Errorf("%s, %d bytes more: response %d has status %s", contentType, most, n, response.Status)
				}
				if n == 0 { // the call is over: what is left of its body comes now
					_, _ = fmt.Fprintf(conn, "%sGET /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", rest)
				}
			}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
			if last := fake.last(); last != nil && last.Method == "Plain" {
				t.Errorf("%s, %d bytes more: the body was served as a request", contentType, most)
			}
		}
	}
}

// TestAConnectionOutlivesAStream: over HTTP/1.1, a call that has read its whole body leaves a
// connection on which the next call runs.
func TestAConnectionOutlivesAStream(t *testing.T) {
	readAll := func(ctx context.Context, s *entities.Stream) error {
		for {
			switch _, err := s.Recv(ctx); {
			case errors.Is(err, io.EOF):
				return s.Send(&entities.Reply{Payload: s.Payload})
			case err != nil:
				return err
			}
		}
	}
	const stream, unary = "/shop.v1.StreamService/In", "/shop.v1.CartService/Plain"
	line := frame(0, "\x0a\x01a")
	for contentType, body := range map[string]string{
		"application/grpc-web+proto": line, "application/grpc-web-text+proto": base64.StdEncoding.EncodeToString([]byte(line)),
		"application/connect+proto": line, "application/connect+json": "",
	} {
		w := newWorld(t, &dispatcher{stream: readAll}, nil)
		w.always(w.reply("Cart", `{"cartId":"42"}`))
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		from := bufio.NewReader(conn)
		call := func(path, contentType, body string) {
			t.Helper()
			if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
				path, contentType, len(body), body); err != nil {
				t.Fatal(err)
			}
			response, err := http.ReadResponse(from, nil)
			if err != nil {
				t.Fatalf("%s after %s: %v", path, contentType, err)
			}
			said, _ := io.ReadAll(response.Body)
			_ = response.Body.Close()
			if response.StatusCode != http.StatusOK {
				t.Fatalf("%s after %s: %s %q", path, contentType, response.Status, said)
			}
		}
		for range 50 {
			call(stream, contentType, body)
			call(unary, "application/proto", "\x0a\x0242")
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}
