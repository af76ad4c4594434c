"""What hpcore knows of libraries that sit on torch.distributed: device meshes, FSDP2."""
