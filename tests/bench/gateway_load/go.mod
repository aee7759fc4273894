module genrm.dev/gateway_load

go 1.22
