// A device plugin for tests: each unit of its extended resource is a character device of the machine that does no harm when it is
// opened.
//
// It runs beside the node and reaches the kubelet's folder through /proc. A kubelet that starts empties that folder, so the plugin
// looks whether its socket is still there and registers anew. Some flags make a faulty plugin. It knows nothing of health.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const (
	kubeletSocket = "kubelet.sock"
	// Time between two looks at the socket, and between two attempts to register.
	poll = 200 * time.Millisecond
	// How long a kubelet may take to answer.
	patience = 5 * time.Second
)

type device struct{ name, host string }

// Devices in the order of the command line.
type devices []device

func (d *devices) String() string { return fmt.Sprint(*d) }

func (d *devices) Set(text string) error {
	name, host, found := strings.Cut(text, "=")
	if !found || d.find(name) != nil {
		return errors.New("expected NAME=PATH, each name once")
	}
	*d = append(*d, device{name, host})
	return nil
}

func (d devices) find(name string) *device {
	for i := range d {
		if d[i].name == name {
			return &d[i]
		}
	}
	return nil
}

type plugin struct {
	api.UnimplementedDevicePluginServer
	devices  devices
	resource string
	// Faults: everybody gets the first device, or all of them, or one that nobody knows of.
	first, all bool
	beside     string
}

func (p *plugin) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{GetPreferredAllocationAvailable: true}, nil
}

// ListAndWatch tells the devices once: none comes or goes.
func (p *plugin) ListAndWatch(_ *api.Empty, stream grpc.ServerStreamingServer[api.ListAndWatchResponse]) error {
	list := &api.ListAndWatchResponse{}
	for _, device := range p.devices {
		list.Devices = append(list.Devices, &api.Device{ID: device.name, Health: api.Healthy})
	}
	if err := stream.Send(list); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "listed")
	<-stream.Context().Done()
	return nil
}

// GetPreferredAllocation takes the devices in their order, where the kubelet would draw lots.
func (p *plugin) GetPreferredAllocation(_ context.Context, asked *api.PreferredAllocationRequest) (*api.PreferredAllocationResponse, error) {
	answer := &api.PreferredAllocationResponse{}
	for _, container := range asked.ContainerRequests {
		chosen := append([]string(nil), container.MustIncludeDeviceIDs...)
		for _, device := range p.devices {
			if len(chosen) < int(container.AllocationSize) && has(container.AvailableDeviceIDs, device.name) && !has(chosen, device.name) {
				chosen = append(chosen, device.name)
			}
		}
		answer.ContainerResponses = append(answer.ContainerResponses, &api.ContainerPreferredAllocationResponse{DeviceIDs: chosen})
	}
	return answer, nil
}

func has(list []string, wanted string) bool {
	for _, one := range list {
		if one == wanted {
			return true
		}
	}
	return false
}

func (p *plugin) Allocate(_ context.Context, asked *api.AllocateRequest) (*api.AllocateResponse, error) {
	answer := &api.AllocateResponse{}
	for _, container := range asked.ContainerRequests {
		var given []device
		for _, name := range container.DevicesIds {
			device := p.devices.find(name)
			if device == nil {
				return nil, fmt.Errorf("device %s is not of this node", name)
			}
			given = append(given, *device)
		}
		fmt.Fprintln(os.Stderr, "allocate", container.DevicesIds)
		switch {
		case p.first:
			given = p.devices[:1]
		case p.all:
			given = p.devices
		}
		response := &api.ContainerAllocateResponse{Envs: map[string]string{}}
		for _, device := range given {
			response.Envs["KARAT_DEVICE_"+strings.ToUpper(strings.ReplaceAll(device.name, "-", "_"))] = "1"
			response.Devices = append(response.Devices, node("/dev/karat-"+device.name, device.host))
		}
		if p.beside != "" {
			response.Devices = append(response.Devices, node("/dev/karat-dev-9", p.beside))
		}
		answer.ContainerResponses = append(answer.ContainerResponses, response)
	}
	return answer, nil
}

func node(inside, host string) *api.DeviceSpec {
	return &api.DeviceSpec{ContainerPath: inside, HostPath: host, Permissions: "rw"}
}

func (p *plugin) register(ctx context.Context, dir, endpoint string) error {
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	connection, err := grpc.NewClient("unix:"+filepath.Join(dir, kubeletSocket), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	options, err := p.GetDevicePluginOptions(ctx, nil)
	if err != nil {
		return err
	}
	_, err = api.NewRegistrationClient(connection).Register(ctx, &api.RegisterRequest{
		Version: api.Version, Endpoint: endpoint, ResourceName: p.resource, Options: options,
	})
	return err
}

// Serves one kubelet: until the socket is gone, or the program shall end.
func (p *plugin) serve(ctx context.Context, dir string) error {
	endpoint := "karat-" + strings.ReplaceAll(p.resource, "/", "-") + ".sock"
	socket := filepath.Join(dir, endpoint)
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	own, err := os.Stat(socket)
	if err != nil {
		listener.Close()
		return err
	}
	server := grpc.NewServer()
	api.RegisterDevicePluginServer(server, p)
	// Stop closes the listener, which removes its file.
	defer server.Stop()
	go server.Serve(listener)
	if err := p.register(ctx, dir, endpoint); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "registered", p.resource)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(poll):
		}
		if now, err := os.Stat(socket); err != nil || !os.SameFile(own, now) {
			return errors.New("the kubelet starts anew")
		}
	}
}

func run() error {
	p := &plugin{}
	dir := flag.String("dir", "", "folder of the kubelet for device plugins")
	flag.StringVar(&p.resource, "resource", "karat.local/test-device", "the extended resource")
	flag.Var(&p.devices, "device", "NAME=PATH of a device; repeatable")
	flag.BoolVar(&p.first, "first", false, "give everybody the first device")
	flag.BoolVar(&p.all, "all", false, "give everybody all devices")
	flag.StringVar(&p.beside, "beside", "", "PATH of a device that everybody gets in addition")
	flag.Parse()
	if *dir == "" || len(p.devices) == 0 {
		return errors.New("-dir and -device are needed")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	// The folder itself and not its name: when the node is gone, its number may become that of another process, with the machine's own
	// kubelet behind the same name.
	folder, err := os.Open(*dir)
	if err != nil {
		return err
	}
	defer folder.Close()
	place := fmt.Sprintf("/proc/self/fd/%d", folder.Fd())
	// Also where the node is gone: who watches over the laboratory ends this program.
	for ctx.Err() == nil {
		if err := p.serve(ctx, place); err != nil {
			fmt.Fprintln(os.Stderr, "device-plugin:", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(poll):
		}
	}
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "device-plugin:", err)
		os.Exit(1)
	}
}
