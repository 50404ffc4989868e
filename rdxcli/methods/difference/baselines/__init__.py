"""The methods RDX is compared with. Each looks at one model at a time, except USAE and the last step of NLMCD."""
