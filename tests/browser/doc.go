// Package browser runs clients that are not ours in Chromium against a gateway of another origin:
// npm grpc-web and @connectrpc/connect-web. The cases are in page/main.js; their libraries are
// locked in page/package-lock.json, fetched once with npm, and bundled with esbuild.
package browser
