// A registry with the referrers API of OCI 1.1, with TLS and one user: go-containerregistry's, which keeps everything in
// memory and has neither. It prints where it listens, and ends when its standard input does.
package main

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	inside := registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0)))
	server := &http.Server{
		Handler:           behind(os.Getenv("REGISTRY_USER"), os.Getenv("REGISTRY_PASSWORD"), inside),
		ReadHeaderTimeout: 5 * time.Second,
	}
	go func() {
		// Whoever started it may be killed, and it is not to stay behind.
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Println("listening", listener.Addr().(*net.TCPAddr).Port)
	log.Fatal(server.ServeTLS(listener, os.Getenv("TLS_CERT"), os.Getenv("TLS_KEY")))
}

func behind(user, password string, inside http.Handler) http.Handler {
	same := func(one, other string) bool { return subtle.ConstantTimeCompare([]byte(one), []byte(other)) == 1 }
	return http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		name, word, given := request.BasicAuth()
		if !given || !same(name, user) || !same(word, password) {
			answer.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(answer, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
			return
		}
		inside.ServeHTTP(answer, request)
	})
}
